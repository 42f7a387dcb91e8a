#!/usr/bin/env bash
# Builds target/c-balancer.wasm. Installs the tools into target/: a C compiler with a libc for
# WebAssembly from PyPI, and from npm the one that turns a core module into a component.
set -euo pipefail
cd "$(dirname "$0")"
mkdir -p target/node

# The tools are installed once, and again when their versions change.
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

# A small stack, because the compiler's default takes all the memory that an instance may have.
target/python/bin/python -m ziglang cc --target=wasm32-wasi -mexec-model=reactor -Os -s \
    -Wall -Wextra -DVERSION="\"$version\"" -Wl,-z,stack-size=65536 -o target/module.wasm balancer.c
cp componentize.mjs target/node/
node target/node/componentize.mjs target/module.wasm "$wit" target/c-balancer.wasm
echo "$PWD/target/c-balancer.wasm: $(wc -c <target/c-balancer.wasm) bytes"
