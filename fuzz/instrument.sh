#!/bin/sh
# Cargo calls this in place of rustc for the crates of this workspace (RUSTC_WORKSPACE_WRAPPER), so that they count which
# of their edges an input reaches. Others' crates stay as they are built anyway. These flags work on stable.
exec "$@" \
  -Cpasses=sancov-module \
  -Cllvm-args=-sanitizer-coverage-level=4 \
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
  -Cllvm-args=-sanitizer-coverage-pc-table \
  -Cllvm-args=-sanitizer-coverage-trace-compares
