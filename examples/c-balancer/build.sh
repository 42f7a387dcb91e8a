#!/usr/bin/env bash
# Builds target/c-balancer.wasm. The tools come from PyPI (a C compiler with a libc for WebAssembly) and
# from npm (core module to component), and stay in target/.
set -euo pipefail
cd "$(dirname "$0")"
mkdir -p target/node

# Installed once, and again when the versions change.
if ! cmp -s requirements.txt target/python/requirements.txt; then
    rm -rf target/python
    python3 -m venv target/python
    target/python/bin/pip install --quiet --disable-pip-version-check -r requirements.txt
    cp requirements.txt target/python/
fi
if ! cmp -s package-lock.json target/node/installed; then
    cp package.json package-lock.json target/node/
    npm ci --prefix target/node --silent --no-audit --no-fund --ignore-scripts
    cp package-lock.json target/node/installed
fi

wit=../../wit/balancer.wit
version=$(sed -n 's/^package pointsman:balancer@\(.*\);$/\1/p' "$wit")

# A small stack: what the compiler sets aside unless told otherwise is all that an instance may have.
target/python/bin/python -m ziglang cc --target=wasm32-wasi -mexec-model=reactor -Os -s \
    -Wall -Wextra -DVERSION="\"$version\"" -Wl,-z,stack-size=65536 -o target/module.wasm balancer.c
cp componentize.mjs target/node/
node target/node/componentize.mjs target/module.wasm "$wit" target/c-balancer.wasm
echo "$PWD/target/c-balancer.wasm: $(wc -c <target/c-balancer.wasm) bytes"
