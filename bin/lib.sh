# shellcheck shell=bash disable=SC2034
# Shared by the scripts in bin/: messages, and how to find the tools. Source it, do not run it.
# Works with bash 3.2, which is what macOS has.

given_path=$PATH
project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)

elixir_minimum=1.14.0
otp_minimum=25
rust_minimum=$(sed -n 's/^ *rust-version *= *"\([0-9.]*\)".*/\1/p' "$project/native/Cargo.toml" 2>/dev/null | head -n 1)
rust_minimum=${rust_minimum:-1.85}

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ] && [ "${TERM:-dumb}" != dumb ]; then
  bold=$'\033[1m' red=$'\033[31m' green=$'\033[32m' plain=$'\033[0m'
else
  bold='' red='' green='' plain=''
fi

say() { printf '%s==> %s%s\n' "$bold" "$*" "$plain"; }
note() { printf '    %s\n' "$*"; }
fail() {
  printf '%serror:%s %s\n' "$red" "$plain" "$1" >&2
  shift
  [ $# -eq 0 ] || printf '       %s\n' "$@" >&2
  exit 1
}

# quietly LOG COMMAND...: writes the output to LOG, and its end to the terminal if the command fails.
quietly() {
  local log=$1 started=$SECONDS
  shift
  mkdir -p "$(dirname "$log")"
  if "$@" >"$log" 2>&1 </dev/null; then
    note "done in $((SECONDS - started)) s"
  else
    tail -n 15 "$log" | sed 's/^/    /' >&2
    note "$(printf '%s ' "$@")failed; its full output is in $log" >&2
    return 1
  fi
}

have() { command -v "$1" >/dev/null 2>&1; }

# version_at_least 1.88.0 1.85: compares up to three numbers and ignores the rest.
version_at_least() {
  local have_part want_part _
  local have_rest=${1%%[!0-9.]*} want_rest=${2%%[!0-9.]*}
  [ -n "$have_rest" ] || return 1
  for _ in 1 2 3; do
    have_part=${have_rest%%.*} want_part=${want_rest%%.*}
    have_part=$((10#${have_part:-0})) want_part=$((10#${want_part:-0}))
    [ "$have_part" -eq "$want_part" ] || { [ "$have_part" -gt "$want_part" ]; return; }
    case $have_rest in *.*) have_rest=${have_rest#*.} ;; *) have_rest=0 ;; esac
    case $want_rest in *.*) want_rest=${want_rest#*.} ;; *) want_rest=0 ;; esac
  done
  return 0
}

# The folder that holds Chatterbex's Python environments, as the library finds it.
cache_home() {
  if [ -n "${CHATTERBEX_HOME:-}" ]; then
    printf '%s\n' "$CHATTERBEX_HOME"
  elif [ "$(uname -s)" = Darwin ]; then
    printf '%s\n' "$HOME/Library/Caches/chatterbex"
  else
    printf '%s\n' "${XDG_CACHE_HOME:-$HOME/.cache}/chatterbex"
  fi
}

tools_venv() { printf '%s\n' "$(cache_home)/tools"; }

add_to_path() {
  case ":$PATH:" in
    *":$1:"*) ;;
    *) if [ -d "$1" ]; then PATH=$1:$PATH; fi ;;
  esac
}

# --- what is installed? each answers with its exit status, and prints nothing -------------------------

elixir_ok() {
  local versions
  have elixir && have mix || return 1
  # One VM answers everything: the versions, and whether the distribution leaves out a part that Mix needs.
  versions=$(elixir -e '
    missing = Enum.reject([:crypto, :inets, :parsetools, :public_key, :tools], &is_list(:code.lib_dir(&1)))
    complete = missing == [] and Code.ensure_loaded?(Mix) and Code.ensure_loaded?(ExUnit)
    IO.puts("#{System.version()} #{System.otp_release()} #{complete}")' 2>/dev/null | tail -n 1) || return 1
  # shellcheck disable=SC2086  # three words
  set -- $versions
  [ $# -eq 3 ] || return 1
  elixir_version=$1 otp_version=$2
  version_at_least "$1" "$elixir_minimum" && version_at_least "$2" "$otp_minimum" && [ "$3" = true ]
}

compiler_ok() {
  # On macOS without the command line tools, cc is a stub that opens a window.
  if [ "$(uname -s)" = Darwin ] && ! xcode-select -p >/dev/null 2>&1; then return 1; fi
  have cc && printf '#include <stdlib.h>\n' | cc -E - >/dev/null 2>&1
}

rust_ok() {
  have cargo && cargo --version >/dev/null 2>&1 || return 1
  rust_version=$(rustc --version 2>/dev/null) || return 1
  rust_version=${rust_version#rustc }
  rust_version=${rust_version%% *}
  version_at_least "$rust_version" "$rust_minimum"
}

# Prints the path of the first Chromium, found as in test/support/chromium.ex.
chromium() {
  local name
  for name in "${CHATTERBEX_CHROMIUM:-}" chromium chromium-browser google-chrome google-chrome-stable \
    "/Applications/Chromium.app/Contents/MacOS/Chromium" "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"; do
    if [ -n "$name" ] && type -P "$name"; then return 0; fi
  done
  return 1
}

# In search order, as in lib/chatterbex/setup/package_profile.ex.
python_versions="3.12 3.13 3.11 3.14 3.10"

# Prints the first Python 3.10 to 3.14 that has a shared libpython and can make a venv.
find_python() {
  local candidate version
  # shellcheck disable=SC2086
  for version in $python_versions ""; do
    for candidate in $(type -ap "python3${version#3}" 2>/dev/null || true) \
      "$HOME/.local/share/uv/python/cpython-${version:-none}."*/bin/python3 \
      "/opt/homebrew/opt/python@${version:-none}/bin/python${version:-none}" \
      "/usr/local/opt/python@${version:-none}/bin/python${version:-none}"; do
      [ -x "$candidate" ] || continue
      if python_usable "$candidate"; then
        printf '%s\n' "$candidate"
        return 0
      fi
    done
  done
  return 1
}

python_usable() {
  "$1" -c '
import ensurepip, os, sys, sysconfig, venv
get = sysconfig.get_config_var
if not (3, 10) <= sys.version_info[:2] <= (3, 14) or sys.maxsize < 2**32 or get("Py_GIL_DISABLED"):
    sys.exit(1)
folders = [get("PYTHONFRAMEWORKPREFIX"), get("LIBDIR"), os.path.join(sys.base_prefix, "lib")]
names = [get("LDLIBRARY"), get("INSTSONAME")]
files = [os.path.join(f, n) for f in folders if f for n in names if n and not n.endswith(".a")]
sys.exit(0 if any(os.path.exists(f) for f in files) else 1)
' >/dev/null 2>&1
}

# install_tool PYTHON NAME: installs a program from the package index where use_tools finds it, and checks the hashes of its
# lock (NAME.txt).
install_tool() {
  local venv logs
  venv=$(tools_venv) logs=$(cache_home)/logs
  note "installing $2 into $venv"
  { [ -x "$venv/bin/python" ] || quietly "$logs/$2-venv.log" "$1" -m venv "$venv"; } &&
    quietly "$logs/$2-install.log" "$venv/bin/python" -m pip install --quiet --require-hashes \
      -r "$project/priv/python/locks/$2.txt" || return 1
  mkdir -p "$venv/on-path"
  ln -sf "../bin/$2" "$venv/on-path/$2"
  use_tools
}

# --- the environment every script runs in -------------------------------------------------------

# Adds installed tools that an older shell does not have on its PATH yet.
use_tools() {
  local folder
  for folder in /opt/homebrew/bin "$HOME/.elixir-install"/installs/otp/*/bin \
    "$HOME/.elixir-install"/installs/elixir/*/bin "$(tools_venv)/on-path"; do
    add_to_path "$folder"
  done
  add_to_path "${CARGO_HOME:-$HOME/.cargo}/bin"
  # Ubuntu keeps newer compilers next to the old one: /usr/lib/rust-1.89/bin.
  if ! rust_ok; then
    for folder in /usr/lib/rust-[0-9]*/bin; do
      if [ -x "$folder/cargo" ] && version_at_least "$(basename "$(dirname "$folder")" | sed 's/rust-//')" "$rust_minimum"; then
        PATH=$folder:$PATH
        break
      fi
    done
  fi
  if have rustup && ! rust_ok && rustup run stable rustc --version >/dev/null 2>&1; then
    export RUSTUP_TOOLCHAIN=stable
  fi
  export PATH

  # Without a UTF-8 locale the VM reads its command line as Latin-1.
  case ${LC_ALL:-${LC_CTYPE:-${LANG:-}}} in
    *[Uu][Tt][Ff]8* | *[Uu][Tt][Ff]-8*) ;;
    *) if [ "$(uname -s)" = Darwin ]; then export LC_ALL=en_US.UTF-8; else export LC_ALL=C.UTF-8; fi ;;
  esac
}

# Prints a line to set the PATH of your own shell, if it would not find the tools.
path_advice() {
  local tool folder folders=''
  for tool in elixir cargo; do
    folder=$(dirname "$(type -P "$tool")")
    if [ "$(PATH=$given_path type -P "$tool" || true)" != "$folder/$tool" ]; then folders="$folders$folder:"; fi
  done
  if [ -n "$folders" ]; then note "For your own shell:  export PATH=\"$folders\$PATH\""; fi
  if [ -n "${RUSTUP_TOOLCHAIN:-}" ]; then note "For your own shell:  rustup default $RUSTUP_TOOLCHAIN"; fi
}

# If Hex is installed, Mix requires the optional dependencies to be fetched. Without Hex there are none.
fetch_dependencies() {
  grep -q '^\* hex-' <<<"$(mix archive 2>/dev/null)" || return 0
  if ! mix deps.get; then
    note "Hex could not fetch the optional dependencies: continuing without Hex"
    MIX_ARCHIVES=$(tools_venv)/no-archives
    mkdir -p "$MIX_ARCHIVES"
    export MIX_ARCHIVES
  fi
}
