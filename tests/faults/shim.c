/* Injects faults below Python, DuckDB, SQLite and Arrow: preloaded, it stands before libc's writes and clocks.

   fault_arm(prefix, kind, at, times): the calls from the at-th on, `times` of them (0: all), that write to files whose path
   begins with prefix, fail with ENOSPC (kind 1) or EIO (2), or write only half (3). fault_calls() counts such calls.
   clock_jump(seconds, at): from the at-th such call on, the wall clock is off by so many seconds. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static char prefix[PATH_MAX];
static int kind = 0, armed = 0;
static long first = 0, many = 0, jump_s = 0, jump_at = 0;
static atomic_long calls = 0;

void fault_arm(const char *path, int what, long at, long times) {
    strncpy(prefix, path, sizeof prefix - 1);
    kind = what; first = at; many = times; calls = 0; armed = 1;
}
long fault_calls(void) { return calls; }
void clock_jump(long seconds, long at) { jump_s = seconds; jump_at = at; }

static int is_ours(int fd) {
    char link[64], path[PATH_MAX];
    if (!armed) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n <= 0) return 0;
    path[n] = 0;
    return strncmp(path, prefix, strlen(prefix)) == 0;
}

/* Returns the kind of the fault that strikes this call, or 0. */
static int strikes(int fd) {
    if (!is_ours(fd)) return 0;
    long n = ++calls;
    return n >= first && (many == 0 || n < first + many) ? kind : 0;
}

#define REAL(name) static typeof(&name) real; if (!real) real = (typeof(&name))dlsym(RTLD_NEXT, #name)
#define FAIL(what) do { errno = (what) == 1 ? ENOSPC : EIO; return -1; } while (0)

#define WRITES(name, params, args, count)                                                            \
    ssize_t name params {                                                                            \
        REAL(name);                                                                                  \
        int what = strikes(fd);                                                                      \
        if (what == 1 || what == 2) FAIL(what);                                                      \
        if (what == 3 && count > 1) count = count / 2;                                               \
        return real args;                                                                            \
    }

WRITES(write, (int fd, const void *data, size_t count), (fd, data, count), count)
WRITES(pwrite, (int fd, const void *data, size_t count, off_t at), (fd, data, count, at), count)
WRITES(pwrite64, (int fd, const void *data, size_t count, off64_t at), (fd, data, count, at), count)
WRITES(writev, (int fd, const struct iovec *parts, int count), (fd, parts, count), count)

#define SYNCS(name, params, args)                                                                    \
    int name params {                                                                                \
        REAL(name);                                                                                  \
        int what = strikes(fd);                                                                      \
        if (what == 1 || what == 2) FAIL(what);                                                      \
        return real args;                                                                            \
    }

SYNCS(fsync, (int fd), (fd))
SYNCS(fdatasync, (int fd), (fd))
SYNCS(ftruncate, (int fd, off_t size), (fd, size))
SYNCS(ftruncate64, (int fd, off64_t size), (fd, size))

int clock_gettime(clockid_t clock, struct timespec *now) {
    REAL(clock_gettime);
    int failed = real(clock, now);
    if (!failed && jump_s && clock == CLOCK_REALTIME && calls >= jump_at) now->tv_sec += jump_s;
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    REAL(gettimeofday);
    int failed = real(now, zone);
    if (!failed && jump_s && calls >= jump_at) now->tv_sec += jump_s;
    return failed;
}

time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}

/* Connections and look-ups that leave this machine are refused, and written to the file that NETWORK_LOG names. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>

static void tell(const char *what, const char *where) {
    const char *path = getenv("NETWORK_LOG");
    char line[512];
    int fd = path ? open(path, O_WRONLY | O_CREAT | O_APPEND, 0600) : -1;
    if (fd < 0) return;
    int n = snprintf(line, sizeof line, "%s %s, process %d\n", what, where, (int)getpid());
    if (write(fd, line, n) < 0) {}
    close(fd);
}

static int leaves(const struct sockaddr *to, char *name, size_t size) {
    if (to->sa_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)to;
        inet_ntop(AF_INET, &in->sin_addr, name, size);
        return (ntohl(in->sin_addr.s_addr) >> 24) != 127 && in->sin_addr.s_addr != 0;
    }
    if (to->sa_family == AF_INET6) {
        const struct sockaddr_in6 *in = (const struct sockaddr_in6 *)to;
        inet_ntop(AF_INET6, &in->sin6_addr, name, size);
        return !IN6_IS_ADDR_LOOPBACK(&in->sin6_addr) && strncmp(name, "::ffff:127.", 11) != 0;
    }
    return 0;
}

int connect(int fd, const struct sockaddr *to, socklen_t size) {
    REAL(connect);
    char name[INET6_ADDRSTRLEN] = "";
    if (getenv("NETWORK_LOG") && leaves(to, name, sizeof name)) {
        tell("connect", name);
        errno = ENETUNREACH;
        return -1;
    }
    return real(fd, to, size);
}

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
    REAL(getaddrinfo);
    struct in6_addr parsed;
    char own[256] = "";
    gethostname(own, sizeof own - 1);
    int is_number = node && (inet_pton(AF_INET, node, &parsed) == 1 || inet_pton(AF_INET6, node, &parsed) == 1);
    if (getenv("NETWORK_LOG") && node && !is_number && strcmp(node, "localhost") && strcmp(node, own)) {
        tell("look-up of", node);
        return EAI_FAIL;
    }
    return real(node, service, hints, found);
}
