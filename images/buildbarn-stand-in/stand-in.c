/* A stand-in for Buildbarn's programs in tests. There is nothing of Buildbarn in it and it stores, schedules and
 * builds nothing. What it does is what a program does that was given a file by the operator:
 *
 * - with one argument it reads that file as Jsonnet of the form that the operator writes (JSON, and std.extVar of
 *   environment variables), and ends with an error where it is anything else;
 * - it opens what the file names: every listenAddresses and listenPaths, every file of a block device, and it ends
 *   with an error where a directory is not there or may not be written;
 * - it answers HTTP on all of them: /-/healthy, and /metrics with numbers that are always the same;
 * - it ends at SIGTERM;
 * - without an argument it is bb_runner_installer: it puts itself at /bb/bb_runner. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

enum { FILE_MAX = 1 << 20, TEXT_MAX = 1024, DEPTH_MAX = 100, LISTENERS_MAX = 16, STORES_MAX = 8 };

static char file[FILE_MAX + 1], *at = file;
static struct pollfd listeners[LISTENERS_MAX];
static int listener_count, store_count;
static char stores[STORES_MAX][TEXT_MAX];

static void fail(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    fputs("stand-in for Buildbarn: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    exit(1);
}

static void end(int signal)
{
    static const char text[] = "stand-in for Buildbarn: told to end\n";

    (void)signal;
    _exit(write(1, text, sizeof text - 1) < 0);
}

/* What the file names. */

static void add_listener(int family, const struct sockaddr *address, socklen_t length, const char *name)
{
    int yes = 1, fd = socket(family, SOCK_STREAM, 0);

    if (listener_count == LISTENERS_MAX)
        fail("more than %d listeners", LISTENERS_MAX);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) || bind(fd, address, length) ||
        listen(fd, 16))
        fail("listen on %s: %s", name, strerror(errno));
    printf("listens on %s\n", name);
    listeners[listener_count].fd = fd;
    listeners[listener_count++].events = POLLIN;
}

static void listen_port(const char *text)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    char *rest;
    long port = *text == ':' ? strtol(text + 1, &rest, 10) : 0;

    if (port < 1 || port > 65535 || *rest)
        fail("listenAddresses: %s is not of the form :PORT", text);
    address.sin_port = htons((unsigned short)port);
    add_listener(AF_INET, (struct sockaddr *)&address, sizeof address, text);
}

static void listen_path(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    if (strlen(path) >= sizeof address.sun_path)
        fail("listenPaths: %s is too long", path);
    strcpy(address.sun_path, path);
    unlink(path);
    add_listener(AF_UNIX, (struct sockaddr *)&address, sizeof address, path);
}

static void need_directory(const char *key, const char *path)
{
    struct stat found;

    if (stat(path, &found) || !S_ISDIR(found.st_mode))
        fail("%s: %s is no directory", key, path);
    if (access(path, R_OK | W_OK | X_OK))
        fail("%s: %s may not be written: %s", key, path, strerror(errno));
}

static void need_file(const char *path)
{
    int fd = open(path, O_RDWR | O_CREAT, 0600);

    if (fd < 0)
        fail("open %s: %s", path, strerror(errno));
    close(fd);
}

/* /storage-cas/persistent_state is that of the store cas. */
static void note_store(const char *path)
{
    static const char before[] = "/storage-";
    char *name = stores[store_count];

    if (strncmp(path, before, sizeof before - 1) || store_count == STORES_MAX)
        return;
    strcpy(name, path + sizeof before - 1);
    name[strcspn(name, "/")] = 0;
    store_count++;
}

static void seen(const char *key, const char *text)
{
    if (!strcmp(key, "listenAddresses"))
        listen_port(text);
    else if (!strcmp(key, "listenPaths"))
        listen_path(text);
    else if (!strcmp(key, "path"))
        need_file(text);
    else if (!strcmp(key, "stateDirectoryPath")) {
        need_directory(key, text);
        note_store(text);
    } else if (!strcmp(key, "buildDirectoryPath") || !strcmp(key, "cacheDirectoryPath"))
        need_directory(key, text);
}

/* The file: JSON, and std.extVar("NAME") where a text may be. */

static int next(void)
{
    at += strspn(at, " \t\r\n");
    return *at;
}

static void want(int character)
{
    if (next() != character)
        fail("byte %ld: '%c' is missing", (long)(at - file), character);
    at++;
}

static void string(char *into)
{
    size_t length = 0;

    want('"');
    for (; *at != '"'; at++) {
        if (*at == '\\')
            at++;
        if (!*at || length == TEXT_MAX - 1)
            fail("byte %ld: a text has no end or is too long", (long)(at - file));
        into[length++] = *at;
    }
    into[length] = 0;
    at++;
}

static void value(const char *key, int depth)
{
    static const char variable[] = "std.extVar(";
    char text[TEXT_MAX];
    int open = next();
    size_t length;

    if (depth > DEPTH_MAX)
        fail("more than %d levels", DEPTH_MAX);
    if (open == '{' || open == '[') {
        int close = open == '{' ? '}' : ']';

        at++;
        if (next() == close) {
            at++;
            return;
        }
        for (;;) {
            if (open == '{') {
                string(text);
                want(':');
            }
            value(open == '{' ? text : key, depth + 1);
            if (next() != ',')
                break;
            at++;
        }
        want(close);
    } else if (open == '"') {
        string(text);
        seen(key, text);
    } else if (!strncmp(at, variable, sizeof variable - 1)) {
        at += sizeof variable - 1;
        string(text);
        want(')');
        if (!getenv(text))
            fail("std.extVar: the environment has no %s", text);
    } else {
        length = strspn(at, "-+.0123456789abcdefghijklmnopqrstuvwxyzE");
        if (!length)
            fail("byte %ld: a value is missing", (long)(at - file));
        at += length;
    }
}

static void read_configuration(const char *path)
{
    int fd = open(path, O_RDONLY);
    ssize_t got, length = 0;

    if (fd < 0)
        fail("open %s: %s", path, strerror(errno));
    while ((got = read(fd, file + length, (size_t)(FILE_MAX - length))) > 0)
        length += got;
    if (got < 0)
        fail("read %s: %s", path, strerror(errno));
    if (length == FILE_MAX)
        fail("%s is longer than %d bytes", path, FILE_MAX - 1);
    close(fd);
    if (next() != '{')
        fail("%s does not begin with {", path);
    value("", 0);
    if (next())
        fail("%s goes on after its end", path);
    if (!listener_count)
        fail("%s names nothing to listen on", path);
    printf("runs by %s\n", path);
}

/* Answers. */

static int metrics(char *into, size_t room)
{
    int length = snprintf(into, room, "stand_in 1\n");

    for (int store = 0; store < store_count; store++) {
        static const char names[2][80] = {
            "buildbarn_blobstore_block_device_backed_block_allocator_allocations_total",
            "buildbarn_blobstore_block_device_backed_block_allocator_releases_total",
        };

        for (int name = 0; name < 2; name++)
            length += snprintf(into + length, room - (size_t)length, "%s{storage_type=\"%.16s\"} %d\n", names[name],
                               stores[store], name ? 3 : 12);
    }
    return length;
}

static void answer(int fd)
{
    struct timeval patience = {.tv_sec = 1};
    char request[4096], body[4096] = "", reply[8192];
    const char *status = "404 Not Found";
    ssize_t got;
    int length;

    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    got = read(fd, request, sizeof request - 1);
    if (got <= 0)
        return;
    request[got] = 0;
    if (!strncmp(request, "GET /-/healthy ", 15)) {
        status = "200 OK";
        strcpy(body, "healthy, and a stand-in\n");
    } else if (!strncmp(request, "GET /metrics ", 13)) {
        status = "200 OK";
        metrics(body, sizeof body);
    }
    length = snprintf(reply, sizeof reply,
                      "HTTP/1.1 %s\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s",
                      status, strlen(body), body);
    /* Who does not take the answer has gone. */
    if (write(fd, reply, (size_t)length) < 0)
        return;
}

static void serve(void)
{
    for (;;) {
        if (poll(listeners, (nfds_t)listener_count, -1) < 0)
            fail("poll: %s", strerror(errno));
        for (int which = 0; which < listener_count; which++) {
            int fd = listeners[which].revents ? accept(listeners[which].fd, 0, 0) : -1;

            if (fd >= 0) {
                answer(fd);
                close(fd);
            }
        }
    }
}

/* bb_runner_installer. */
static void install(void)
{
    char buffer[1 << 16];
    ssize_t got;
    int from = open("/proc/self/exe", O_RDONLY), to = open("/bb/bb_runner", O_WRONLY | O_CREAT | O_TRUNC, 0755);

    if (from < 0 || to < 0)
        fail("open /bb/bb_runner: %s", strerror(errno));
    while ((got = read(from, buffer, sizeof buffer)) > 0)
        if (write(to, buffer, (size_t)got) != got)
            fail("write /bb/bb_runner: %s", strerror(errno));
    if (got < 0 || fchmod(to, 0755) || close(to))
        fail("write /bb/bb_runner: %s", strerror(errno));
    need_file("/bb/installed");
    puts("installed itself as bb_runner");
}

int main(int count, char **arguments)
{
    struct sigaction on_end = {.sa_handler = end};

    signal(SIGPIPE, SIG_IGN);
    if (sigaction(SIGTERM, &on_end, 0) || sigaction(SIGINT, &on_end, 0))
        return 1;
    setvbuf(stdout, 0, _IOLBF, 0);
    if (count == 1) {
        install();
        return 0;
    }
    if (count != 2)
        fail("takes one argument, the configuration");
    read_configuration(arguments[1]);
    serve();
}
