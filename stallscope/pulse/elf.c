/* The words through which loaded objects call libc (JUMP_SLOT, GLOB_DAT, and pointers in their data), changed to
 * point at our hooks, and back.
 *
 * A word is changed only where it holds what it would hold without anybody's interference: the function that dlsym
 * finds, or (before its first call, with lazy binding) an address of the object's own, if it has no function of that
 * name itself. Whatever else is there, another patcher's hook or an older version of the symbol, is left alone.
 */
#include "pulse.h"
#include "loader.h"

#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#if defined(__x86_64__)
enum { JUMP_SLOT = R_X86_64_JUMP_SLOT, GLOB_DAT = R_X86_64_GLOB_DAT, POINTER = R_X86_64_64 };
#elif defined(__aarch64__)
enum { JUMP_SLOT = R_AARCH64_JUMP_SLOT, GLOB_DAT = R_AARCH64_GLOB_DAT, POINTER = R_AARCH64_ABS64 };
#else
#error "the pulse knows x86-64 and aarch64"
#endif

#define WORDS_MAX 16384  /* a power of two; CPython with sixty extensions has about 1,500 */
#define SCANNED_MAX 1024

struct word {
    void **at;
    void *before;
};

static struct word words[WORDS_MAX];  /* what we changed, by the hash of its address */
static _Atomic unsigned word_count;
static uintptr_t scanned[SCANNED_MAX];  /* lowest addresses of the objects that need no second look */
static unsigned scanned_count;
static unsigned long long adds_seen, subs_seen;
static uintptr_t interpreter_lo;

struct object {
    uintptr_t base, lo, hi;       /* addresses of its segments: [lo, hi) */
    uintptr_t relro_lo, relro_hi; /* the pages that the loader made read-only after relocation */
    bool opened;                  /* for us to write there */
    const ElfW(Sym) *symbols;
    const char *strings;
    bool runs_loops;              /* a library whose runs are known by the functions of OF_RUN */
    bool is_openssl;
    const ElfW(Rela) *tables[2];
    size_t counts[2];
};

static uintptr_t page_of(uintptr_t address)
{
    return address & ~((uintptr_t)sysconf(_SC_PAGESIZE) - 1);
}

static void read_segments(const struct dl_phdr_info *info, struct object *object, const ElfW(Dyn) **dynamic)
{
    object->base = info->dlpi_addr;
    object->lo = UINTPTR_MAX;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *segment = &info->dlpi_phdr[i];
        uintptr_t lo = info->dlpi_addr + segment->p_vaddr, hi = lo + segment->p_memsz;
        if (segment->p_type == PT_DYNAMIC)
            *dynamic = (const ElfW(Dyn) *)lo;
        if (segment->p_type == PT_GNU_RELRO)  /* a last page that other data shares stays as it was */
            object->relro_lo = page_of(lo), object->relro_hi = page_of(hi);
        if (segment->p_type != PT_LOAD)
            continue;
        object->lo = lo < object->lo ? lo : object->lo;
        object->hi = hi > object->hi ? hi : object->hi;
    }
}

/* glibc has relocated these addresses, musl has not. */
static uintptr_t relocated(const struct object *object, uintptr_t address)
{
    return address >= object->lo && address < object->hi ? address : address + object->base;
}

static bool read_dynamic(struct object *object, const ElfW(Dyn) *entry)
{
    for (; entry->d_tag != DT_NULL; entry++) {
        uintptr_t address = relocated(object, entry->d_un.d_ptr);
        switch (entry->d_tag) {
        case DT_SYMTAB: object->symbols = (const ElfW(Sym) *)address; break;
        case DT_STRTAB: object->strings = (const char *)address; break;
        case DT_JMPREL: object->tables[0] = (const ElfW(Rela) *)address; break;
        case DT_RELA: object->tables[1] = (const ElfW(Rela) *)address; break;
        case DT_PLTRELSZ: object->counts[0] = entry->d_un.d_val / sizeof(ElfW(Rela)); break;
        case DT_RELASZ: object->counts[1] = entry->d_un.d_val / sizeof(ElfW(Rela)); break;
        case DT_PLTREL:
            if (entry->d_un.d_val != DT_RELA)
                return false;
            break;
        default: break;
        }
    }
    return object->symbols != NULL && object->strings != NULL;
}

static bool starts_with(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

/* libc, the loader, the kernel's own object, and sanitizers call libc for their own purposes. */
static bool is_left_alone(const char *path)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    static const char *const kept[] = {"libc.so", "libc-2.", "libpthread", "ld-linux", "ld-musl", "ld-2.", "libc.musl",
                                       "linux-vdso", "libasan", "libtsan", "libubsan", "liblsan", "libclang_rt"};
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
        if (starts_with(name, kept[i]))
            return true;
    return false;
}

static bool is_ours(const struct object *object)
{
    uintptr_t here = (uintptr_t)&words;
    return here >= object->lo && here < object->hi;
}

static bool describe_object(const struct dl_phdr_info *info, struct object *object)
{
    const ElfW(Dyn) *dynamic = NULL;
    const char *path = info->dlpi_name ? info->dlpi_name : "";
    if (is_left_alone(path))
        return false;
    object->runs_loops = strstr(path, "/uvloop/loop.") != NULL;
    object->is_openssl = strstr(path, "/libcrypto") != NULL;  /* wheels bring their own, as libcrypto-HASH.so.3 */
    read_segments(info, object, &dynamic);
    return dynamic != NULL && !is_ours(object) && read_dynamic(object, dynamic);
}

static bool set_pages(const struct object *object, int protection)
{
    return mprotect((void *)object->relro_lo, object->relro_hi - object->relro_lo, protection) == 0;
}

/* The pages are opened at the first word and closed after the last: a call for each word would cost a program with many
 * objects a millisecond and more. */
static void write_word(struct object *object, void **at, void *value)
{
    bool read_only = (uintptr_t)at >= object->relro_lo && (uintptr_t)at < object->relro_hi;
    if (read_only && !object->opened)
        object->opened = set_pages(object, PROT_READ | PROT_WRITE);
    if (read_only && !object->opened)
        return;
    __atomic_store_n(at, value, __ATOMIC_RELEASE);
}

static void close_pages(struct object *object)
{
    if (object->opened)
        set_pages(object, PROT_READ);
    object->opened = false;
}

static void *replacement_for(const struct object *object, int hook)
{
    if (object->is_openssl)
        return openssl_replacement(hook);
    return interpreter_lo && object->lo == interpreter_lo ? interpreter_replacement(hook) : hooks[hook].replacement;
}

/* The entry of a word, or the free one in which it belongs. */
static struct word *word_at(void **at)
{
    size_t slot = ((uintptr_t)at >> 3) * 0x9E3779B97F4A7C15ull >> 50;
    while (words[slot].at != NULL && words[slot].at != at)
        slot = (slot + 1) % WORDS_MAX;
    return &words[slot];
}

static void hook_word(struct object *object, void **at, int hook, bool is_unbound_call)
{
    void *value = __atomic_load_n(at, __ATOMIC_ACQUIRE);
    bool lazy = is_unbound_call && (uintptr_t)value >= object->lo && (uintptr_t)value < object->hi;
    if (value != real[hook] && !lazy)
        return;
    struct word *known = word_at(at);  /* perhaps of an unloaded object, whose place this one has taken */
    if (known->at == NULL && word_count >= WORDS_MAX / 4 * 3)
        return;
    word_count += known->at == NULL;
    *known = (struct word){at, value};
    write_word(object, at, replacement_for(object, hook));
}

static void unhook_word(struct object *object, void **at, int hook)
{
    struct word *known = word_at(at);
    if (known->at != NULL && __atomic_load_n(at, __ATOMIC_ACQUIRE) == replacement_for(object, hook)) {
        write_word(object, at, known->before);
        word_count--;
    }
}

static void each_word(struct object *object, bool hooking)
{
    for (int table = 0; table < 2; table++)
        for (size_t i = 0; i < object->counts[table] && object->tables[table]; i++) {
            const ElfW(Rela) *entry = &object->tables[table][i];
            unsigned long type = ELF64_R_TYPE(entry->r_info);
            if ((type != JUMP_SLOT && type != GLOB_DAT && type != POINTER) || (type == POINTER && entry->r_addend))
                continue;
            const ElfW(Sym) *symbol = &object->symbols[ELF64_R_SYM(entry->r_info)];
            int hook = hook_named(object->strings + symbol->st_name);
            if (hook < 0 || real[hook] == NULL || replacement_for(object, hook) == NULL ||
                (hooks[hook].kind == OF_RUN && !object->runs_loops))
                continue;
            void **at = (void **)(object->base + entry->r_offset);
            if (hooking)
                hook_word(object, at, hook, type == JUMP_SLOT && symbol->st_shndx == SHN_UNDEF);
            else
                unhook_word(object, at, hook);
        }
    close_pages(object);
}

static bool has_counts(size_t size)
{
    return size >= offsetof(struct dl_phdr_info, dlpi_subs) + sizeof(unsigned long long);
}

/* After an unloading everything is looked at again: another object may stand at the same address. */
static bool needs_a_look(const struct dl_phdr_info *info, size_t size, uintptr_t lo)
{
    if (!has_counts(size) || info->dlpi_subs != subs_seen)
        scanned_count = 0;
    if (has_counts(size))
        adds_seen = info->dlpi_adds, subs_seen = info->dlpi_subs;
    for (unsigned i = 0; i < scanned_count; i++)
        if (scanned[i] == lo)
            return false;
    if (scanned_count < SCANNED_MAX)
        scanned[scanned_count++] = lo;
    return true;
}

/* --- all objects ------------------------------------------------------------------------------------------------ */

static int hook_object(struct dl_phdr_info *info, size_t size, void *unused)
{
    struct object object = {0};
    (void)unused;
    if (describe_object(info, &object) && needs_a_look(info, size, object.lo))
        each_word(&object, true);
    return 0;
}

static int unhook_object(struct dl_phdr_info *info, size_t size, void *unused)
{
    struct object object = {0};
    (void)size, (void)unused;
    if (describe_object(info, &object))
        each_word(&object, false);
    return 0;
}

static void hook_all(void)
{
    if (atomic_load(&pulse_active))  /* it may have been stopped while we waited for the lock */
        each_object(hook_object, NULL);
}

int elf_hook(void)
{
    under_loader_lock(hook_all);
    return (int)word_count;
}

static int restored;  /* -1: not yet */

static void unhook_all(void)
{
    int before = (int)word_count;
    if (each_object(unhook_object, NULL) != 0)
        return;
    restored = before - (int)word_count;
    memset(words, 0, sizeof words);
    word_count = scanned_count = 0;
}

int elf_unhook(void)
{
    for (restored = -1; restored < 0; sched_yield())
        under_loader_lock(unhook_all);
    return restored;
}

static int compare_counts(struct dl_phdr_info *info, size_t size, void *changed)
{
    *(bool *)changed = !has_counts(size) || info->dlpi_adds != adds_seen || info->dlpi_subs != subs_seen;
    return 1;  /* every object carries the same two counts: one look is enough */
}

bool elf_changed(void)
{
    bool changed = false;
    each_object(compare_counts, &changed);
    return changed;
}

static int is_around(struct dl_phdr_info *info, size_t size, void *inside)
{
    struct object object = {0};
    const ElfW(Dyn) *dynamic = NULL;
    (void)size;
    read_segments(info, &object, &dynamic);
    if ((uintptr_t)inside < object.lo || (uintptr_t)inside >= object.hi)
        return 0;
    interpreter_lo = object.lo;
    return 1;
}

void elf_interpreter(const void *inside)
{
    dl_iterate_phdr(is_around, (void *)(uintptr_t)inside);
}
