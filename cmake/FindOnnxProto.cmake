# The protobuf classes of the ONNX format (Debian: libonnx-dev, libprotobuf-dev) as OnnxProto::onnx_proto. Not by ONNX's
# own ONNXConfig.cmake: it names protobuf::libprotobuf without finding it, and wants every library of the ONNX project.
find_package(Protobuf QUIET MODULE)
find_path(OnnxProto_INCLUDE_DIR onnx/onnx-ml.pb.h)
find_library(OnnxProto_LIBRARY onnx_proto)
mark_as_advanced(OnnxProto_INCLUDE_DIR OnnxProto_LIBRARY)

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(OnnxProto REQUIRED_VARS OnnxProto_LIBRARY OnnxProto_INCLUDE_DIR Protobuf_FOUND
  REASON_FAILURE_MESSAGE "install libonnx-dev and libprotobuf-dev (tools/setup.sh does)")

if(OnnxProto_FOUND AND NOT TARGET OnnxProto::onnx_proto)
  add_library(OnnxProto::onnx_proto UNKNOWN IMPORTED)
  set_target_properties(OnnxProto::onnx_proto PROPERTIES
    IMPORTED_LOCATION ${OnnxProto_LIBRARY}
    INTERFACE_INCLUDE_DIRECTORIES ${OnnxProto_INCLUDE_DIR}
    INTERFACE_COMPILE_DEFINITIONS "ONNX_ML=1;ONNX_NAMESPACE=onnx"
    INTERFACE_LINK_LIBRARIES protobuf::libprotobuf)
endif()
