/* Words of objects of every kind: found, changed, and put back. */
#include "drive.h"

#include <dlfcn.h>
#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

/* --- the words themselves ------------------------------------------------------------------------------------------ */

#define WORDS 100000
struct words {
    unsigned count;
    void **at[WORDS], *value[WORDS];
};

#if defined(__x86_64__)
#define FUNCTION_WORD(type) ((type) == R_X86_64_JUMP_SLOT || (type) == R_X86_64_GLOB_DAT || (type) == R_X86_64_64)
#else
#define FUNCTION_WORD(type) ((type) == R_AARCH64_JUMP_SLOT || (type) == R_AARCH64_GLOB_DAT || (type) == R_AARCH64_ABS64)
#endif

__attribute__((no_sanitize("address"))) static void each_relocation(struct words *words, const struct dl_phdr_info *info, uintptr_t table, size_t size)
{
    const ElfW(Rela) *entry = (const ElfW(Rela) *)table;
    for (size_t i = 0; i < size / sizeof *entry; i++)
        if (FUNCTION_WORD(ELF64_R_TYPE(entry[i].r_info)) && words->count < WORDS) {
            void **at = (void **)(info->dlpi_addr + entry[i].r_offset);
            words->at[words->count] = at;
            words->value[words->count++] = *at;
        }
}

static int read_object(struct dl_phdr_info *info, size_t unused, void *into)
{
    uintptr_t tables[2] = {0, 0};
    size_t sizes[2] = {0, 0};
    (void)unused;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        if (info->dlpi_phdr[i].p_type != PT_DYNAMIC || info->dlpi_addr == 0)
            continue;
        for (const ElfW(Dyn) *d = (const void *)(info->dlpi_addr + info->dlpi_phdr[i].p_vaddr); d->d_tag; d++) {
            uintptr_t address = d->d_un.d_ptr < info->dlpi_addr ? d->d_un.d_ptr + info->dlpi_addr : d->d_un.d_ptr;
            if (d->d_tag == DT_JMPREL)
                tables[0] = address;
            if (d->d_tag == DT_RELA)
                tables[1] = address;
            if (d->d_tag == DT_PLTRELSZ)
                sizes[0] = d->d_un.d_val;
            if (d->d_tag == DT_RELASZ)
                sizes[1] = d->d_un.d_val;
        }
    }
    if (strstr(info->dlpi_name, "linux-vdso") == NULL)
        for (int i = 0; i < 2; i++)
            each_relocation(into, info, tables[i], sizes[i]);
    return 0;
}

static struct words *read_words(void)
{
    struct words *words = calloc(1, sizeof *words);
    dl_iterate_phdr(read_object, words);
    CHECK(words->count > 0 && words->count < WORDS);
    return words;
}

static bool is_hook(const void *value)
{
    for (unsigned hook = 0; hook < hook_count; hook++)
        if (value != NULL && value == hooks[hook].replacement)
            return true;
    return false;
}

static unsigned hooked(const struct words *words)
{
    unsigned count = 0;
    for (unsigned i = 0; i < words->count; i++)
        count += is_hook(words->value[i]);
    return count;
}

static unsigned hooked_now(void)
{
    struct words *now = read_words();
    unsigned count = hooked(now);
    free(now);
    return count;
}

/* A page that was read-only before is so again. */
static unsigned writable_pages(void)
{
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[1024];
    unsigned pages = 0;
    while (fgets(line, sizeof line, maps) != NULL) {
        unsigned long lo, hi;
        char mode[5];
        if (sscanf(line, "%lx-%lx %4s", &lo, &hi, mode) == 3 && mode[1] == 'w' && strstr(line, ".so") != NULL)
            pages += (unsigned)((hi - lo) / 4096);
    }
    fclose(maps);
    return pages;
}

static void restored(void)
{
    void *lazy = plug_in("plug_lazy.so", RTLD_LAZY), *now = plug_in("plug_now.so", RTLD_NOW);
    unsigned pages = writable_pages();
    begin(100 * MILLISECOND);  /* what `begin` itself calls is bound by then */
    pulse_end();
    for (int round = 0; round < 3; round++) {
        struct words *before = read_words();
        begin(100 * MILLISECOND);
        struct words *during = read_words();
        unsigned changed = hooked(during);
        CHECK(changed > 20);
        CHECK_EQUAL(pulse_end(), changed);
        struct words *after = read_words();
        CHECK_EQUAL(before->count, after->count);
        CHECK_EQUAL(hooked(after), 0);
        for (unsigned i = 0; i < before->count; i++)  /* the others are the loader's, which may bind them at any time */
            CHECK(!is_hook(during->value[i]) || after->value[i] == before->value[i]);
        CHECK_EQUAL(writable_pages(), pages);
    }
    dlclose(lazy);
    dlclose(now);
}

/* --- calls from objects of each kind ----------------------------------------------------------------------------------- */

typedef int sleeper(long ns);
typedef ssize_t reader(int fd, void *to, size_t size);
typedef int opener(const char *path);

#define FUNCTION(type, name, handle) type *name; *(void **)&name = dlsym(handle, #name); CHECK(name != NULL)

static struct loop loop;

/* What a slow read is reported as, after `read` has been called through each way that the object has. */
static void reads_are_seen(reader *read_by)
{
    int pipes[2];
    char byte;
    CHECK_EQUAL(pipe(pipes), 0);
    CHECK_EQUAL(write(pipes[1], "x", 1), 1);
    taken.call_count = 0;
    turn(&loop);
    CHECK_EQUAL(read_by(pipes[0], &byte, 1), 1);
    struct sum *sum = NULL;
    for (unsigned i = 0; i < hook_count; i++)
        if (strcmp(hooks[i].symbol, "read") == 0)
            sum = &atomic_load(&threads[0])->sums[i];
    unsigned slow = atomic_load(&threads[0])->calls_noted;
    CHECK(slow > 0 || (sum->count > 0 && sum->iteration == atomic_load(&threads[0])->iteration));
    close(pipes[0]);
    close(pipes[1]);
}

static void calls_are_seen(const char *name, int flags)
{
    void *handle = plug_in(name, flags);
    FUNCTION(sleeper, plug_sleep, handle);
    FUNCTION(reader, plug_read, handle);
    FUNCTION(reader, plug_read_by_table, handle);
    FUNCTION(reader, plug_read_by_constant, handle);
    FUNCTION(opener, plug_open64, handle);
    for (int twice = 0; twice < 2; twice++) {  /* a word that was bound lazily must stay ours */
        turn(&loop);
        CHECK_EQUAL(plug_sleep(15 * MILLISECOND), 0);
        turn(&loop);
        taken.call_count = 0;
        take();
        const struct call *call = call_taken("nanosleep");
        CHECK(call != NULL && call->duration_ns >= 15 * MILLISECOND);
    }
    reads_are_seen(plug_read);
    reads_are_seen(plug_read_by_table);
    reads_are_seen(plug_read_by_constant);
    close(plug_open64("/dev/null"));
    dlclose(handle);
}

static void object_kinds(void)
{
    begin(10 * MILLISECOND);
    loop = loop_open(0);
    calls_are_seen("plug_lazy.so", RTLD_LAZY);
    calls_are_seen("plug_lazy.so", RTLD_NOW);
    calls_are_seen("plug_now.so", RTLD_NOW);
    calls_are_seen("plug_relro.so", RTLD_LAZY);
    loop_close(&loop);
    pulse_end();
}

static void fortified(void)
{
#ifndef __GLIBC__
    puts("this libc has no fortified calls");
    exit(SKIPPED);
#else
    begin(5 * MILLISECOND);
    void *handle = plug_in("fortified.so", RTLD_NOW);
    typedef ssize_t with_fd(int fd, size_t size);
    typedef ssize_t with_path(const char *path, size_t size);
    typedef int polls(int fd, unsigned long count, int timeout);
    typedef int opens(const char *path, int flags);
    FUNCTION(with_fd, fortified_read, handle);
    FUNCTION(with_fd, fortified_pread, handle);
    FUNCTION(with_fd, fortified_recv, handle);
    FUNCTION(with_path, fortified_readlink, handle);
    FUNCTION(polls, fortified_poll, handle);
    FUNCTION(opens, fortified_open, handle);
    int sockets[2];
    loop = loop_open(0);
    CHECK_EQUAL(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets), 0);
    struct timeval patience = {0, 20000};
    CHECK_EQUAL(setsockopt(sockets[0], SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience), 0);
    turn(&loop);
    CHECK_EQUAL(fortified_poll(sockets[0], 2, 20), 0);
    CHECK(fortified_read(sockets[0], 60) == -1 && errno == EAGAIN);
    CHECK(fortified_recv(sockets[0], 60) == -1 && errno == EAGAIN);
    close(fortified_open("/dev/null", O_RDONLY));
    CHECK(fortified_readlink("/proc/self/exe", 64) > 0);
    CHECK(fortified_pread(sockets[0], 60) == -1 && errno == ESPIPE);
    turn(&loop);
    take();
    CHECK(call_taken("poll") != NULL && call_taken("poll")->duration_ns >= 20 * MILLISECOND);
    CHECK(call_taken("read") != NULL && call_taken("read")->duration_ns >= 19 * MILLISECOND);
    CHECK(call_taken("recvfrom") != NULL && call_taken("recvfrom")->duration_ns >= 19 * MILLISECOND);
    CHECK_EQUAL(call_taken("read")->argument, sockets[0]);
    loop_close(&loop);
    pulse_end();
#endif
}

/* Loaded by its name alone, an object is found by the watchdog. */
static void found_later(void)
{
    if (SANITIZED) {
        puts("sanitizers ask the loader on the program's behalf");
        exit(SKIPPED);
    }
    begin(10 * MILLISECOND);
    loop = loop_open(0);
    void *handle = dlopen("plug_now.so", RTLD_NOW);  /* where this program's own RUNPATH says */
    CHECK(handle != NULL);
    FUNCTION(sleeper, plug_sleep, handle);
    for (int i = 0; call_taken("nanosleep") == NULL; i++) {
        CHECK(i < 500);
        turn(&loop);
        CHECK_EQUAL(plug_sleep(11 * MILLISECOND), 0);
        turn(&loop);
        take();
    }
    loop_close(&loop);
    pulse_end();
}

/* The loader looks at who calls it: the hook must not stand in between. */
static void loads_for_its_caller(void)
{
#ifndef __GLIBC__
    puts("this libc's dlopen does not look at its caller");
    exit(SKIPPED);
#endif
    if (SANITIZED) {
        puts("sanitizers ask the loader on the program's behalf");
        exit(SKIPPED);
    }
    begin(100 * MILLISECOND);
    void *handle = plug_in("there/loads_another.so", RTLD_NOW);
    typedef void *loads(void);
    FUNCTION(loads, load_by_name, handle);
    FUNCTION(loads, load_by_origin, handle);
    void *by_name = load_by_name(), *by_origin = load_by_origin();
    CHECK(by_name != NULL);
    CHECK(by_origin == by_name);
    pulse_end();
}

/* --- objects that go ----------------------------------------------------------------------------------------------------- */

static void unloaded(void)
{
#ifndef __GLIBC__
    puts("this libc never unloads an object");
    exit(SKIPPED);
#endif
    static const char *const names[] = {"plug_lazy.so", "plug_now.so", "plug_relro.so", "fortified.so"};
    begin(5 * MILLISECOND);
    loop = loop_open(0);
    unsigned before = hooked_now();
    for (int i = 0; i < 400; i++) {
        const char *name = names[i * 7 / 3 % 3];
        void *handle = plug_in(name, i % 2 ? RTLD_NOW : RTLD_LAZY);
        FUNCTION(opener, plug_open64, handle);
        turn(&loop);
        close(plug_open64("/dev/null"));
        if (i % 50 == 0)
            sleep_ms(6);  /* the watchdog looks */
        CHECK_EQUAL(dlclose(handle), 0);
    }
    CHECK_EQUAL(hooked_now(), before);
    loop_close(&loop);
    CHECK_EQUAL(pulse_end(), before);
    CHECK_EQUAL(hooked_now(), 0);
}

static _Atomic bool enough;

static void *load_and_unload(void *name)
{
    while (!atomic_load(&enough)) {
        void *handle = plug_in(name, RTLD_NOW);
        FUNCTION(sleeper, plug_sleep, handle);
        plug_sleep(1000);
        dlclose(handle);
    }
    return NULL;
}

/* Objects come and go in some threads while the watchdog looks at them, and the pulse begins and ends. */
static void loading_storm(void)
{
    pthread_t thread[3];
    static const char *const names[] = {"plug_lazy.so", "plug_now.so", "plug_relro.so"};
    for (int i = 0; i < 3; i++)
        CHECK_EQUAL(pthread_create(&thread[i], NULL, load_and_unload, (void *)(uintptr_t)names[i]), 0);
    for (int i = 0; i < 40; i++) {
        begin(MILLISECOND);
        usleep(5000);
        pulse_end();
    }
    atomic_store(&enough, true);
    for (int i = 0; i < 3; i++)
        pthread_join(thread[i], NULL);
    CHECK_EQUAL(hooked_now(), 0);
}

/* --- who else is there ---------------------------------------------------------------------------------------------------- */

static ssize_t (*before_theirs)(int, void *, size_t);
static _Atomic unsigned theirs;

static ssize_t their_read(int fd, void *to, size_t size)
{
    atomic_fetch_add(&theirs, 1);
    return before_theirs(fd, to, size);
}

/* Another patcher puts its function into an object's table of calls, before us or after us. */
static void patched_before(void)
{
    char byte;
    void *handle = plug_in("plug_now.so", RTLD_NOW);
    reader **table = dlsym(handle, "plug_table");
    FUNCTION(reader, plug_read_by_table, handle);
    before_theirs = table[0];
    table[0] = their_read;
    begin(100 * MILLISECOND);
    CHECK(table[0] == their_read);
    CHECK(plug_read_by_table(-1, &byte, 1) == -1 && errno == EBADF);
    CHECK_EQUAL(atomic_load(&theirs), 1);
    pulse_end();
    CHECK(table[0] == their_read);
}

static void patched_after(void)
{
    char byte;
    void *handle = plug_in("plug_now.so", RTLD_NOW);
    reader **table = dlsym(handle, "plug_table"), *original = table[0];
    FUNCTION(reader, plug_read_by_table, handle);
    begin(100 * MILLISECOND);
    CHECK(table[0] != original);
    before_theirs = table[0];
    table[0] = their_read;
    pulse_end();
    CHECK(table[0] == their_read);
    CHECK(plug_read_by_table(-1, &byte, 1) == -1 && errno == EBADF);
    CHECK_EQUAL(atomic_load(&theirs), 1);
}

/* Run with LD_PRELOAD: the interposer goes on being called, and what it passes on is timed. */
static void preloaded(void)
{
    _Atomic unsigned *count = dlsym(RTLD_DEFAULT, "preload_reads");
    if (count == NULL) {
        puts("only of use with preload.so in LD_PRELOAD");
        exit(SKIPPED);
    }
    begin(10 * MILLISECOND);
    loop = loop_open(0);
    unsigned before = atomic_load(count);
    reads_are_seen(read);
    CHECK_EQUAL(atomic_load(count), before + 1);
    loop_close(&loop);
    pulse_end();
}

/* A function of an object's own that only has the name of one of libc's is none of ours. */
static void own_names(void)
{
#ifndef RTLD_DEEPBIND
    puts("this libc has no RTLD_DEEPBIND");
    exit(SKIPPED);
#else
    if (SANITIZED) {
        puts("sanitizers refuse RTLD_DEEPBIND");
        exit(SKIPPED);
    }
    begin(10 * MILLISECOND);
    loop = loop_open(0);
    void *handle = plug_in("own_names.so", RTLD_LAZY | RTLD_DEEPBIND);
    typedef double sends(double, double);
    FUNCTION(sends, own_send, handle);
    turn(&loop);
    CHECK(own_send(6, 7) == 42);
    sleep_ms(5);
    CHECK(own_send(6, 7) == 42);
    loop_close(&loop);
    pulse_end();
#endif
}

/* OpenSSL takes hundreds of thousands of locks for one context: they are not ours to slow down. Its reads are timed. */
static void openssl_locks(void)
{
    void *other = plug_in("plug_now.so", RTLD_NOW), *openssl = plug_in("libcrypto-plug.so.3", RTLD_NOW);
    void **others = dlsym(other, "plug_locks"), **locks = dlsym(openssl, "plug_locks"), **reads = dlsym(openssl, "plug_table");
    void *reading = locks[0], *writing = locks[1], *reads_before = reads[0];
    CHECK(others[0] == reading && others[1] == writing);
    begin(100 * MILLISECOND);
    CHECK(others[0] != reading && others[1] != writing);
    CHECK(locks[0] == reading && locks[1] == writing);
    CHECK(reads[0] != reads_before);
    pulse_end();
    CHECK(locks[0] == reading && others[0] == reading && reads[0] == reads_before);
}

const struct scenario objects[] = {
    {"restored", restored},
    {"object_kinds", object_kinds},
    {"fortified", fortified},
    {"found_later", found_later},
    {"loads_for_its_caller", loads_for_its_caller},
    {"unloaded", unloaded},
    {"loading_storm", loading_storm},
    {"patched_before", patched_before},
    {"patched_after", patched_after},
    {"preloaded", preloaded},
    {"own_names", own_names},
    {"openssl_locks", openssl_locks},
    {NULL, NULL},
};
