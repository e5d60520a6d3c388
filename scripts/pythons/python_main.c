/* Turns an executable that embeds CPython into the python command: what the C library calls from __libc_start_main(),
   which this library replaces, is CPython's own main function. Built without a C library, since it may be musl's that
   it is loaded with. */
#include <stdarg.h>
#include <stddef.h>

#define RTLD_NEXT ((void *)-1)
extern void *dlsym(void *, const char *);
extern int vsnprintf(char *, size_t, const char *, va_list);
extern int Py_BytesMain(int, char **);

typedef int (*Main)(int, char **, char **);
typedef int (*Start)(Main, int, char **, void (*)(void), void (*)(void), void (*)(void), void *);

static int run_python(int argc, char **argv, char **environment) {
    (void)environment;
    return Py_BytesMain(argc, argv);
}

/* musl's has no `stack`, and takes no notice. */
int __libc_start_main(Main own, int argc, char **argv, void (*init)(void), void (*fini)(void), void (*loader)(void),
                      void *stack) {
    (void)own;
    Start start = (Start)dlsym(RTLD_NEXT, "__libc_start_main");
    return start(run_python, argc, argv, init, fini, loader, stack);
}

#ifdef LIBC_IS_MUSL
/* What Debian's zlib, which was built for glibc, wants of it. */
int __vsnprintf_chk(char *text, size_t length, int flag, size_t room, const char *format, va_list values) {
    (void)flag, (void)room;
    return vsnprintf(text, length, format, values);
}

int __snprintf_chk(char *text, size_t length, int flag, size_t room, const char *format, ...) {
    (void)flag, (void)room;
    va_list values;
    va_start(values, format);
    int written = vsnprintf(text, length, format, values);
    va_end(values);
    return written;
}
#endif
