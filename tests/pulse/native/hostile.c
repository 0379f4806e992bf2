/* What a program may do to itself while the pulse is aboard: signals, forks, small stacks, no descriptors, a sandbox. */
#include "drive.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#if __has_include(<linux/seccomp.h>)
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#define SECCOMP 1
#else
#define SECCOMP 0
#endif

extern char **environ;

static struct loop loop;

static void begin_in_loop(uint64_t stall_ns)
{
    begin(stall_ns);
    loop = loop_open(0);
    turn(&loop);
}

static void end_in_loop(void)
{
    loop_close(&loop);
    pulse_end();
}

/* --- errno ----------------------------------------------------------------------------------------------------------- */

static void errno_kept(void)
{
    int sockets[2];
    char byte;
    begin_in_loop(2 * MILLISECOND);
    CHECK_EQUAL(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets), 0);
    struct timeval patience = {0, 20000};
    CHECK_EQUAL(setsockopt(sockets[0], SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience), 0);
    for (int i = 0; i < 3; i++) {
        errno = 0;
        CHECK(open("/no/such/file", O_RDONLY) == -1 && errno == ENOENT);
        CHECK(read(-1, &byte, 1) == -1 && errno == EBADF);
        CHECK(recv(sockets[0], &byte, 1, 0) == -1 && errno == EAGAIN);  /* slow: it is described, and written out */
        CHECK(connect(sockets[0], NULL, 0) == -1 && errno != EAGAIN);
        turn(&loop);
    }
    sem_t lock;
    pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    CHECK_EQUAL(sem_init(&lock, 0, 1), 0);
    errno = 42;
    CHECK_EQUAL(sem_wait(&lock), 0);
    CHECK_EQUAL(pthread_mutex_lock(&mutex), 0);
    CHECK_EQUAL(errno, 42);
    struct timespec past = {1, 0};
    CHECK(sem_timedwait(&lock, &past) == -1 && errno == ETIMEDOUT);
    end_in_loop();
}

static void *posts_later(void *lock)
{
    sleep_ms(20);
    sem_post(lock);
    return NULL;
}

static void errno_kept_by_a_lock_that_waits(void)
{
    sem_t lock;
    pthread_t thread;
    CHECK_EQUAL(sem_init(&lock, 0, 0), 0);
    begin_in_loop(2 * MILLISECOND);
    CHECK_EQUAL(pthread_create(&thread, NULL, posts_later, &lock), 0);
    errno = 42;
    CHECK_EQUAL(sem_wait(&lock), 0);
#ifdef __GLIBC__  /* musl's own sem_wait sets it */
    CHECK_EQUAL(errno, 42);
#endif
    turn(&loop);
    take();
    CHECK(call_taken("sem_wait") != NULL);
    pthread_join(thread, NULL);
    end_in_loop();
}

/* Arguments that the kernel refuses to look at are not looked at by us. */
static void bad_pointers(void)
{
    if (SANITIZED) {
        puts("sanitizers look at the arguments themselves");
        exit(SKIPPED);
    }
    const char *volatile nowhere = (const char *)16;
    struct pollfd *volatile no_list = (void *)16;
    int no_socket = open("/dev/null", O_RDONLY);
    begin_in_loop(100 * MILLISECOND);
    for (int i = 0; i < 100; i++) {
        CHECK(open(nowhere, O_RDONLY) == -1 && errno == EFAULT);
        CHECK(unlink(nowhere) == -1 && errno == EFAULT);
        CHECK(poll(no_list, 3, 0) == -1 && errno == EFAULT);
        CHECK(connect(no_socket, (const void *)nowhere, 16) == -1);
        CHECK(connect(-1, (const void *)nowhere, 16) == -1);
        turn(&loop);
    }
    end_in_loop();
}

/* An address may be shorter than its type, and end where the memory ends. */
static void short_addresses(void)
{
    long page = sysconf(_SC_PAGESIZE);
    char *pages = mmap(NULL, 2 * (size_t)page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(pages != MAP_FAILED && munmap(pages + page, (size_t)page) == 0);
    begin_in_loop(3200);  /* every call of 100 ns is described */
    static const char abstract[] = "\0stallscope-no-such-socket";
    for (int i = 0; i < 100; i++) {
        int fd = socket(AF_UNIX, SOCK_STREAM, 0);
        size_t size = sizeof(sa_family_t) + sizeof abstract - 1;
        char *address = pages + page - size;
        memcpy(address, &(sa_family_t){AF_UNIX}, sizeof(sa_family_t));
        memcpy(address + sizeof(sa_family_t), abstract, sizeof abstract - 1);
        CHECK(connect(fd, (struct sockaddr *)address, (socklen_t)size) == -1 && errno == ECONNREFUSED);
        address = pages + page - sizeof(sa_family_t);
        memcpy(address, &(sa_family_t){AF_INET}, sizeof(sa_family_t));
        CHECK(connect(fd, (struct sockaddr *)address, sizeof(sa_family_t)) == -1 && errno == EINVAL);
        close(fd);
        turn(&loop);
    }
    take();
    bool named = false;
    for (unsigned i = 0; i < taken.call_count; i++)
        named |= strcmp(taken.calls[i].text, "sunix:@stallscope-no-such-socket") == 0;
    CHECK(named);
    end_in_loop();
}

/* --- signals ------------------------------------------------------------------------------------------------------------ */

static volatile sig_atomic_t rung;
static int handler_pipe[2];

/* A handler that makes calls of its own, wherever it interrupts. */
static void ring(int signal)
{
    char byte = 'x';
    const struct timespec moment = {0, 1000};
    int error = errno;
    (void)signal;
    rung++;
    if (write(handler_pipe[1], &byte, 1) == 1 && read(handler_pipe[0], &byte, 1) == 1)
        nanosleep(&moment, NULL);
    errno = error;
}

static void on_alarm(void (*handler)(int), int flags)
{
    struct sigaction action = {.sa_handler = handler, .sa_flags = flags};
    sigemptyset(&action.sa_mask);
    CHECK_EQUAL(pipe(handler_pipe), 0);
    CHECK_EQUAL(sigaction(SIGALRM, &action, NULL), 0);
}

static void every(unsigned microseconds)
{
    struct itimerval timer = {{0, microseconds}, {0, microseconds}};
    CHECK_EQUAL(setitimer(ITIMER_REAL, &timer, NULL), 0);
}

static void interrupted(void)
{
    int pipes[2];
    char byte;
    sem_t never;
    const struct timespec second = {1, 0};
    on_alarm(ring, 0);
    CHECK_EQUAL(pipe(pipes), 0);
    CHECK_EQUAL(sem_init(&never, 0, 0), 0);
    begin_in_loop(2 * MILLISECOND);
    every(5000);
    for (int i = 0; i < 10; i++) {
        CHECK(read(pipes[0], &byte, 1) == -1 && errno == EINTR);
        CHECK(nanosleep(&second, NULL) == -1 && errno == EINTR);
        CHECK(sem_wait(&never) == -1 && errno == EINTR);
        CHECK(poll(NULL, 0, 1000) == -1 && errno == EINTR);
    }
    every(0);
    turn(&loop);
    take();
    CHECK(call_taken("read") != NULL && call_taken("sem_wait") != NULL && call_taken("poll") != NULL);
    end_in_loop();
}

static void signals_anywhere(void)
{
    const struct timespec moment = {0, 20000};
    on_alarm(ring, SA_RESTART);
    begin_in_loop(200000);
    every(300);
    unsigned turns = 1;
    while (rung < 1000) {
        nanosleep(&moment, NULL);
        close(open("/no/such/file", O_RDONLY));
        turn(&loop);
        turns++;
        take();
    }
    every(0);
    loop_close(&loop);
    CHECK_EQUAL(iterations_of(0), turns);
    pulse_end();
}

static void *signals_on_a_small_stack(void *unused)
{
#ifdef _SC_MINSIGSTKSZ
    size_t size = (size_t)sysconf(_SC_MINSIGSTKSZ) + 4096;
#else
    size_t size = SIGSTKSZ;
#endif
    stack_t stack = {.ss_sp = malloc(size), .ss_size = size};
    const struct timespec moment = {0, 20000};
    (void)unused;
    CHECK_EQUAL(sigaltstack(&stack, NULL), 0);
    struct loop own = loop_open(1);
    while (rung < 300) {
        raise(SIGALRM);
        nanosleep(&moment, NULL);
        turn(&own);
    }
    loop_close(&own);
    stack.ss_flags = SS_DISABLE;
    sigaltstack(&stack, NULL);
    free(stack.ss_sp);
    return NULL;
}

static void alternate_stack(void)
{
    pthread_t thread;
    if (SANITIZED) {
        puts("sanitizers need more stack");
        exit(SKIPPED);
    }
    on_alarm(ring, SA_ONSTACK | SA_RESTART);
    begin(20000);
    CHECK_EQUAL(pthread_create(&thread, NULL, signals_on_a_small_stack, NULL), 0);
    pthread_join(thread, NULL);
    pulse_end();
}

static sigjmp_buf out;

static void jump_out(int signal)
{
    (void)signal;
    siglongjmp(out, 1);
}

/* A handler that never returns leaves a call behind that never ends. */
static void jumped_out_of_a_call(void)
{
    int pipes[2];
    char byte;
    CHECK_EQUAL(pipe(pipes), 0);
    on_alarm(jump_out, 0);
    begin_in_loop(10 * MILLISECOND);
    for (volatile int i = 0; i < 5; i++) {
        if (sigsetjmp(out, 1) == 0) {
            struct itimerval once = {{0, 0}, {0, 3000}};
            CHECK_EQUAL(setitimer(ITIMER_REAL, &once, NULL), 0);
            CHECK(read(pipes[0], &byte, 1) == -2);
        }
        turn(&loop);
        sleep_ms(15);
        turn(&loop);
        take();
        CHECK(call_taken("clock_nanosleep") != NULL);
        taken.call_count = 0;
    }
    end_in_loop();
}

static void *cancelled_in_a_call(void *fd)
{
    char byte;
    struct loop own = loop_open(2);
    turn(&own);
    CHECK(read((int)(intptr_t)fd, &byte, 1) == -2);
    return NULL;
}

static void cancelled(void)
{
    int pipes[2];
    if (SANITIZED) {
        puts("sanitizers take the unwinding of a cancelled thread for an overflow");
        exit(SKIPPED);
    }
    CHECK_EQUAL(pipe(pipes), 0);
    begin(100 * MILLISECOND);
    for (int i = 1; i <= 20; i++) {
        pthread_t thread;
        void *result;
        CHECK_EQUAL(pthread_create(&thread, NULL, cancelled_in_a_call, (void *)(intptr_t)pipes[0]), 0);
        while (cell(2, L_STARTED) == 0)
            sched_yield();
        CHECK_EQUAL(pthread_cancel(thread), 0);
        CHECK_EQUAL(pthread_join(thread, &result), 0);
        CHECK(result == PTHREAD_CANCELED);
        CHECK_EQUAL(iterations_of(2), i);
    }
    pulse_end();
}

/* --- small stacks ---------------------------------------------------------------------------------------------------------- */

static void *calls_on_a_small_stack(void *unused)
{
    struct loop own = loop_open(1);
    int pipes[2], sockets[2];
    char byte;
    (void)unused;
    CHECK_EQUAL(pipe(pipes), 0);
    CHECK_EQUAL(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets), 0);
    for (int i = 0; i < 200; i++) {
        turn(&own);
        close(open("/no/such/file", O_RDONLY));
        close(openat(0, "no/such/file", O_RDONLY));
        CHECK(write(pipes[1], "x", 1) == 1 && read(pipes[0], &byte, 1) == 1);
        CHECK(send(sockets[0], "x", 1, 0) == 1 && recv(sockets[1], &byte, 1, 0) == 1);
        connect(sockets[0], (const struct sockaddr *)&(struct sockaddr_un){AF_UNIX, "/no/such/socket"}, sizeof(struct sockaddr_un));
    }
    loop_close(&own);
    return NULL;
}

static void small_stacks(void)
{
    pthread_attr_t attributes;
    pthread_t thread;
    if (SANITIZED) {
        puts("sanitizers need more stack");
        exit(SKIPPED);
    }
    begin(3200);  /* every call is described, every iteration a stall */
    pthread_attr_init(&attributes);
    long least = sysconf(_SC_THREAD_STACK_MIN);
    CHECK_EQUAL(pthread_attr_setstacksize(&attributes, least > 16384 ? (size_t)least : 16384), 0);
    int error = pthread_create(&thread, &attributes, calls_on_a_small_stack, NULL);
    CHECK_EQUAL(error, 0);
    pthread_join(thread, NULL);
    take();
    CHECK(taken.stalls > 0);
    pulse_end();
}

/* --- processes --------------------------------------------------------------------------------------------------------------- */

static void waited_for(pid_t pid)
{
    int status = -1;
    CHECK_EQUAL(waitpid(pid, &status, 0), pid);
    CHECK_EQUAL(status, 0);
}

static void forked(void)
{
    begin_in_loop(2 * MILLISECOND);
    for (int i = 0; i < 20; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            alarm(20);
            sleep_ms(1);
            for (int j = 0; j < 10; j++)
                turn(&loop);
            begin(2 * MILLISECOND);  /* the child may have a pulse of its own */
            struct loop own = loop_open(5);
            for (int j = 0; j < 100; j++)
                turn(&own);
            loop_close(&own);
            CHECK_EQUAL(iterations_of(5), 100);
            CHECK(pulse_end() > 0);
            _exit(0);
        }
        CHECK(pid > 0);
        waited_for(pid);
        turn(&loop);
    }
    loop_close(&loop);
    CHECK_EQUAL(iterations_of(0), 21);
    CHECK_EQUAL(iterations_of(5), 0);
    take();
    CHECK(call_taken("wait4") != NULL);
    pulse_end();
}

/* A fork while the watchdog looks at an object that has just come; the child loads objects too. */
static void forks_while_loading(void)
{
    begin(MILLISECOND);
    for (int i = 0; i < 100; i++) {
        void *handle = plug_in(i % 2 ? "plug_now.so" : "plug_lazy.so", RTLD_NOW);
        usleep(i % 10 * 110);
        pid_t pid = fork();
        if (pid == 0) {
            alarm(20);
            begin(MILLISECOND);
            plug_in("plug_relro.so", RTLD_NOW);
            pulse_end();
            _exit(0);
        }
        CHECK(pid > 0);
        waited_for(pid);
        dlclose(handle);
    }
    pulse_end();
}

/* A child of vfork runs on its parent's memory and closes descriptors, the parent's loop's too. */
static void vforked(void)
{
    struct epoll_event event;
    begin(100 * MILLISECOND);
    int fd = epoll_create1(EPOLL_CLOEXEC);
    for (int i = 0; i < 50; i++) {
        epoll_wait(fd, &event, 1, 0);
        pid_t pid = vfork();
        if (pid == 0) {
            for (int closed = 3; closed < 32; closed++)
                close(closed);
            char *const words[] = {(char *)"true", NULL};
            execve("/bin/true", words, environ);
            _exit(127);
        }
        CHECK(pid > 0);
        waited_for(pid);
    }
    close(fd);
    CHECK_EQUAL(iterations_of(UNDECLARED), 49);
    CHECK_EQUAL(iterations_from(UNDECLARED), 49);
    pulse_end();
}

static void spawned(void)
{
    begin_in_loop(100000);
    for (int i = 0; i < 20; i++) {
        pid_t pid;
        char *const words[] = {(char *)"true", NULL};
        CHECK_EQUAL(posix_spawn(&pid, "/bin/true", NULL, NULL, words, environ), 0);
        waited_for(pid);
        CHECK_EQUAL(posix_spawnp(&pid, "true", NULL, NULL, words, environ), 0);
        waited_for(pid);
        turn(&loop);
        take();
    }
    CHECK(call_taken("posix_spawn") != NULL && strcmp(call_taken("posix_spawn")->text, "ftrue") != 0);
    end_in_loop();
}

/* --- what the kernel refuses ------------------------------------------------------------------------------------------------- */

static void some_iterations(void)
{
    uint64_t before = iterations_of(0);
    for (int i = 0; i < 20; i++) {
        sleep_ms(3);
        turn(&loop);
        take();
    }
    CHECK_EQUAL(iterations_of(0) - before, 20);
    CHECK(taken.stalls >= 20);
    CHECK(call_taken("clock_nanosleep") != NULL);
}

static void no_descriptors_left(void)
{
    loop.epoll = epoll_create1(0);
    struct rlimit limit;
    CHECK_EQUAL(getrlimit(RLIMIT_NOFILE, &limit), 0);
    begin(2 * MILLISECOND);
    limit.rlim_cur = (rlim_t)dup(0) + 1;
    CHECK_EQUAL(setrlimit(RLIMIT_NOFILE, &limit), 0);
    CHECK(dup(0) == -1 && errno == EMFILE);
    CHECK_EQUAL(thread_open(slot_at(0), loop.epoll, -1, false), 0);
    turn(&loop);
    some_iterations();
    thread_close();
    pulse_end();
}

/* A program that closes all it does not know, as daemons do, and reuses the numbers: what they stand for is its own. */
#define REUSED 32

static void all_descriptors_closed(void)
{
    int event[REUSED];
    uint64_t count;
    begin_in_loop(2 * MILLISECOND);
    sleep_ms(3);
    for (int fd = 3; fd < 2048; fd++)
        if (fd != loop.epoll)
            close(fd);
    for (int i = 0; i < REUSED; i++) {
        int low = eventfd(1, EFD_NONBLOCK);  /* a read takes what is in it, wherever it is told to read */
        CHECK((event[i] = fcntl(low, F_DUPFD, i < REUSED / 2 ? 3 : 900)) >= 0);
        close(low);
    }
    turn(&loop);
    some_iterations();
    loop_close(&loop);
    pulse_end();
    for (int i = 0; i < REUSED; i++)
        CHECK(read(event[i], &count, sizeof count) == sizeof count && count == 1);
}

#if SECCOMP
#if defined(__x86_64__)
#define ARCHITECTURE AUDIT_ARCH_X86_64
#else
#define ARCHITECTURE AUDIT_ARCH_AARCH64
#endif

/* After this the kernel refuses what the pulse asks it, and the program does not. */
static bool sandbox(void)
{
    static const unsigned refused[] = {SYS_readlinkat, SYS_getpeername, SYS_fcntl, SYS_pread64, SYS_openat, SYS_mprotect,
#ifdef SYS_readlink
                                       SYS_readlink, SYS_open,
#endif
    };
    struct sock_filter rules[32] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCHITECTURE, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
    };
    unsigned short count = 4;
    for (unsigned i = 0; i < sizeof refused / sizeof *refused; i++) {
        rules[count++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, refused[i], 0, 1);
        rules[count++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
    }
    rules[count++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_fprog program = {count, rules};
    CHECK_EQUAL(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program) == 0;
}
#else
static bool sandbox(void)
{
    return false;
}
#endif

static void sandboxed(void)
{
    if (SANITIZED) {
        puts("sanitizers need what the sandbox refuses");
        exit(SKIPPED);
    }
    begin_in_loop(2 * MILLISECOND);
    if (!sandbox()) {
        puts("no seccomp here");
        exit(SKIPPED);
    }
    CHECK(open("/dev/null", O_RDONLY) == -1 && errno == EPERM);
    turn(&loop);
    some_iterations();
    loop_close(&loop);
    pulse_end();  /* read-only words cannot be put back; the hooks pass on what they are given */
    sleep_ms(1);
}

const struct scenario hostile[] = {
    {"errno_kept", errno_kept},
    {"errno_kept_by_a_lock_that_waits", errno_kept_by_a_lock_that_waits},
    {"bad_pointers", bad_pointers},
    {"short_addresses", short_addresses},
    {"interrupted", interrupted},
    {"signals_anywhere", signals_anywhere},
    {"alternate_stack", alternate_stack},
    {"jumped_out_of_a_call", jumped_out_of_a_call},
    {"cancelled", cancelled},
    {"small_stacks", small_stacks},
    {"forked", forked},
    {"forks_while_loading", forks_while_loading},
    {"vforked", vforked},
    {"spawned", spawned},
    {"no_descriptors_left", no_descriptors_left},
    {"all_descriptors_closed", all_descriptors_closed},
    {"sandboxed", sandboxed},
    {NULL, NULL},
};
