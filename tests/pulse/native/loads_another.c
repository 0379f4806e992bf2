/* An object that loads another: by the name alone, which is looked for where this object's own RUNPATH says, and by
 * $ORIGIN, which means this object's own folder. */
#include <dlfcn.h>

void *load_by_name(void);
void *load_by_origin(void);

/* Calls, not jumps: the loader must see them come from here. */
void *load_by_name(void)
{
    void *volatile handle = dlopen("only_there.so", RTLD_NOW);
    return handle;
}

void *load_by_origin(void)
{
    void *volatile handle = dlopen("$ORIGIN/only_there.so", RTLD_NOW);
    return handle;
}
