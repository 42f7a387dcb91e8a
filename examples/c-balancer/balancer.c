/* The endpoint with the fewest requests in flight for its weight; of several, each in its turn. */

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

/* Position that the last request went to. */
static size_t last;

/* The gateway puts texts and lists into memory that this returns. */
__attribute__((export_name("cabi_realloc"))) void *
cabi_realloc(void *old, size_t old_size, size_t alignment, size_t size)
{
    (void)old_size;
    /* Of nothing, there is nothing to free either. */
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

/* The schema lets nothing but {} through. */
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
        /* Load for each unit of weight is compared without a division. */
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

/* Asked only of a balancer that wants no columns. */
POLICY("pick") const struct choice *pick(REQUEST)
{
    static const struct choice none = {0};
    (void)entropy, (void)now, (void)has_affinity, (void)affinity, (void)attempt;
    return &none;
}
