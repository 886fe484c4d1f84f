#!/usr/bin/env bash
# Compares the crates' manifests with the picture in ARCHITECTURE.md: who may use whom, and which crates know no runtime.
set -euo pipefail
cd "$(dirname "$0")/.."

uses() { # CRATE: the crates of ours that it depends on, tests left out
  sed -n '/^\[dependencies\]/,/^\[/p' "$1/Cargo.toml" | sed -n 's/^sixnines-\([a-z]*\).*/\1/p' | sort | tr '\n' ' '
}

fail=0
expect() { # CRATE ALLOWED...
  crate=$1; shift
  for used in $(uses "$crate"); do
    case " $* " in *" $used "*) ;; *) echo "$crate uses $used, which the house does not allow"; fail=1 ;; esac
  done
}

expect core
expect discs core
expect drivers core
expect checkpoint core discs drivers
expect hwsim core discs drivers
for crate in core; do
  if grep -qE '^(tokio|quinn|nix|libc)' "$crate/Cargo.toml"; then echo "$crate knows a runtime or an operating system"; fail=1; fi
done
for crate in discs checkpoint; do
  if grep -E '^(tokio|quinn)' "$crate/Cargo.toml" | grep -qv 'optional = true'; then echo "$crate: tokio and quinn belong to the feature shell"; fail=1; fi
done
exit $fail
