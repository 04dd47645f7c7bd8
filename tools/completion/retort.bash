# Completion for bash of Retort's programs: options, run names, config files, keys for --set. Installed to
# share/bash-completion/completions; in a build folder: source ../tools/completion/retort.bash
#
# Options and their fixed values are read from the program's own --help, so that this file need not know them.

# The names of the runs, and with a slash in the word their versions, below runs/ here or, in a build folder, one above.
_retort_runs() {
  local root
  for root in runs ../runs; do
    [[ -d $root ]] && (cd "$root" && compgen -d -- "$1")
  done
}

# What the program's --help says of option $2 in braces: {f32,tf32,bf16}.
_retort_values() {
  "$1" --help 2>/dev/null | sed -n "s/^ *\(-[a-z], *\)\{0,1\}$2 .*{\([^}]*\)}.*/\2/p" | tr ',' ' '
}

# The keys that the config on the command line knows, as its own text gives them: "optimizer.lr=".
_retort_keys() {
  local word config=
  for word in "${COMP_WORDS[@]}"; do [[ $word == *.cfg && -f $word ]] && config=$word; done
  [[ -n $config ]] && awk '/^\[\[/ { section = "-"; next }
    /^\[/ { gsub(/[][ \t\r]/, ""); section = $0 "."; next }
    /^[A-Za-z_]+[ \t]*=/ && section != "-" { sub(/[ \t]*=.*/, ""); if ($0 != "extends") print section $0 "=" }' "$config"
}

_retort() {
  local program=$1 word=$2 before=$3 name=${1##*/} candidates=
  COMPREPLY=()
  case $before in
    --set)
      compopt -o nospace 2>/dev/null
      mapfile -t COMPREPLY < <(compgen -W "$(_retort_keys)" -- "$word")
      return ;;
    --*) candidates=$(_retort_values "$program" "$before") ;;
  esac
  if [[ -n $candidates ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$candidates" -- "$word")
    return
  fi
  if [[ $word == -* ]]; then
    candidates=$("$program" --help 2>/dev/null | grep -oE -- '^ *(-[a-z], *)?--[a-z][a-z-]*' | grep -oE -- '--[a-z-]+')
    mapfile -t COMPREPLY < <(compgen -W "$candidates" -- "$word")
    return
  fi
  compopt -o filenames 2>/dev/null
  case $name in
    train | distill)
      mapfile -t COMPREPLY < <(compgen -f -X '!*.cfg' -- "$word"; compgen -d -- "$word") ;;
    runs)
      mapfile -t COMPREPLY < <(_retort_runs "$word") ;;
    dataset)
      mapfile -t COMPREPLY < <(compgen -W "cifar10 cifar100 shapes" -- "$word") ;;
    *)
      mapfile -t COMPREPLY < <([[ $word == runs/* ]] && _retort_runs "${word#runs/}" | sed 's|^|runs/|'
        _retort_runs "$word"; compgen -f -- "$word") ;;
  esac
  # A folder of runs may be named by both ways.
  mapfile -t COMPREPLY < <(((${#COMPREPLY[@]})) && printf '%s\n' "${COMPREPLY[@]}" | sort -u)
}

complete -F _retort train distill evaluate predict runs dataset
complete -F _retort ./export # by its path only: `export` alone is a word of the shell's own
