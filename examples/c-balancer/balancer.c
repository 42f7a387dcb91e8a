/* Picks the endpoint with the fewest requests in flight for its weight; equal ones take turns. */

#include <stdlib.h>

#include "contract.h"

static const struct text columns[] = {TEXT("in-flight")};

static const struct description description = {
    .name = TEXT("c-balancer"),
    .version = TEXT("1.0.0"),
    .config_schema = TEXT("{\"type\": \"object\", \"additionalProperties\": false}"),
    .columns = columns,
    .column_count = 1,
};

static struct endpoint *table;
static size_t count;

/* Position of the last pick. */
static size_t last;

/* Allocates the memory into which the gateway writes strings and lists. */
__attribute__((export_name("cabi_realloc"))) void *
cabi_realloc(void *old, size_t old_size, size_t alignment, size_t size)
{
    (void)old_size;
    /* Nothing is allocated for size 0, so nothing has to be freed. */
    if (size == 0)
        return (void *)alignment;
    void *memory = realloc(old, size);
    if (memory == NULL)
        __builtin_trap();
    return memory;
}

POLICY("describe") const struct description *describe(void)
{
    return &description;
}

/* The settings are always {}, because the schema accepts nothing else. */
POLICY("configure") const struct outcome *configure(char *config, size_t length)
{
    static const struct outcome fine = {0};
    if (length > 0)
        free(config);
    return &fine;
}

POLICY("endpoints-changed") void endpoints_changed(struct endpoint *endpoints, size_t length)
{
    if (count > 0)
        free(table);
    table = endpoints;
    count = length;
    last = 0;
}

POLICY("pick-by-load") const struct choice *pick_by_load(REQUEST, uint32_t *load, size_t length)
{
    static struct choice choice;
    (void)entropy, (void)now, (void)has_affinity, (void)affinity, (void)attempt;
    size_t best = 0;
    for (size_t step = 1; step <= count && count <= length; step++) {
        size_t position = (last + step) % count;
        /* Compares the load for each unit of weight without a division. */
        uint64_t mine = (uint64_t)load[position] * table[best].weight;
        uint64_t its = (uint64_t)load[best] * table[position].weight;
        if (step == 1 || mine < its)
            best = position;
    }
    if (length > 0)
        free(load);
    last = best;
    choice.is_some = count > 0;
    choice.position = (uint32_t)best;
    return &choice;
}

/* The gateway calls this only if describe names no columns. */
POLICY("pick") const struct choice *pick(REQUEST)
{
    static const struct choice none = {0};
    (void)entropy, (void)now, (void)has_affinity, (void)affinity, (void)attempt;
    return &none;
}
