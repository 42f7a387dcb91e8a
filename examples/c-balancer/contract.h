/* wit/balancer.wit in C: the canonical ABI of the component model, for 32-bit WebAssembly.
 *
 * Strings and lists are a pointer and a length. Arguments were allocated by cabi_realloc and belong
 * to the callee; the gateway reads results before the next call. A struct that does not fit into
 * one value is returned by its address. */
#ifndef CONTRACT_H
#define CONTRACT_H

#include <stddef.h>
#include <stdint.h>

/* Exports a function of the interface `policy`. build.sh sets VERSION to the contract's version. */
#define POLICY(function) \
    __attribute__((export_name("pointsman:balancer/policy@" VERSION "#" function)))

/* string */
struct text {
    const char *start;
    size_t length;
};

#define TEXT(literal) { literal, sizeof(literal) - 1 }

/* record description */
struct description {
    struct text name;
    struct text version;
    struct text config_schema;
    const struct text *columns;
    size_t column_count;
};

/* record endpoint */
struct endpoint {
    uint64_t id;
    uint32_t weight;
};

/* result<_, string> */
struct outcome {
    uint8_t is_error;
    struct text error;
};

/* option<u32> */
struct choice {
    uint8_t is_some;
    uint32_t position;
};

/* A record of five fields is five arguments; option<u64> is two of them. */
#define REQUEST                                                                                       \
    uint64_t entropy, uint64_t now, uint32_t has_affinity, uint64_t affinity, uint32_t attempt

#endif
