"""Serves a model with llama.cpp's server until standard input ends.

    python serve.py MODEL NAME [CACHE_MIB [SLOTS]]

Each answer has NAME as its model. Writes its port to standard output once it listens. It has SLOTS
requests in its batch, and keeps CACHE_MIB mebibytes of the prompts that it had before.
"""

import sys

import xllamacpp


def main(model, name, cache_mib="64", slots="4"):
    params = xllamacpp.CommonParams()
    params.model.path = model
    params.model_alias = {name}
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    # One thread computes, and does not poll for work: several of these share a small machine.
    for threads in (params.cpuparams, params.cpuparams_batch):
        threads.n_threads = 1
        threads.poll = 0
    # Each request that is served or waits has one.
    params.n_threads_http = 32
    params.n_parallel = int(slots)
    params.n_ctx = 8192 * params.n_parallel
    params.n_batch = 512
    params.cache_ram_mib = int(cache_mib)
    params.endpoint_metrics = True
    params.ui = False
    params.fit_params = False
    params.warmup = False
    params.verbosity = 0
    server = xllamacpp.Server(params)
    print(server.listening_address.rsplit(":", 1)[1], flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
