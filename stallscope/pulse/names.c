/* The hooks by the names that the linker knows. */
#include "pulse.h"

#include <dlfcn.h>
#include <string.h>

static const struct {
    const char *symbol, *hook;
} aliases[] = {
#define HOOK(...)
#define FLOW(...)
#define WAIT(...)
#define LOCKS(...)
#define SPECIAL(...)
#define ALIAS(symbol, name) {symbol, #name},
#include "hooks.def"
};

#define NAMES 1024  /* a power of two, several times the number of symbols */
static struct {
    const char *symbol;
    int hook;
} names[NAMES];

static unsigned hash(const char *text)
{
    unsigned value = 2166136261u;  /* FNV-1a */
    for (; *text; text++)
        value = (value ^ (unsigned char)*text) * 16777619u;
    return value % NAMES;
}

static void name_hook(const char *symbol, int hook)
{
    unsigned slot = hash(symbol);
    while (names[slot].symbol != NULL)
        slot = (slot + 1) % NAMES;
    names[slot].symbol = symbol;
    names[slot].hook = hook;
}

int hook_named(const char *symbol)
{
    for (unsigned slot = hash(symbol); names[slot].symbol != NULL; slot = (slot + 1) % NAMES)
        if (strcmp(names[slot].symbol, symbol) == 0)
            return names[slot].hook;
    return -1;
}

/* An alias must be the very same function (on some platforms stat64 is not stat); otherwise it is not hooked. */
static void name_aliases(void)
{
    for (size_t i = 0; i < sizeof aliases / sizeof *aliases; i++) {
        int hook = hook_named(aliases[i].hook);
        void *found = hook >= 0 ? dlsym(RTLD_DEFAULT, aliases[i].symbol) : NULL;
        if (found != NULL && found == real[hook])
            name_hook(aliases[i].symbol, hook);
    }
}

void hooks_find(void)
{
    static bool known;
    if (known)
        return;
    for (unsigned hook = 0; hook < hook_count; hook++)
        if (hooks[hook].replacement != NULL && (real[hook] = dlsym(RTLD_DEFAULT, hooks[hook].symbol)) != NULL)
            name_hook(hooks[hook].symbol, (int)hook);
    name_aliases();
    known = true;
}
