# cmake --install: the libraries with a package config, so that another project can use find_package(retort).
