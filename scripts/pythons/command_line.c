/* Turns an executable that embeds CPython, without Py_Main(), into a python command: the C library calls its own
   main function from __libc_start_main(), which this library replaces. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <Python.h>

static void check(PyStatus status) {
    if (PyStatus_Exception(status)) Py_ExitStatusException(status);
}

static PyObject *text(const wchar_t *given) {
    return given ? PyUnicode_FromWideChar(given, -1) : Py_NewRef(Py_None);
}

/* What Py_RunMain() does, by _command_line.run(command, module, file). */
static int run_python(int argc, char **argv, char **environment) {
    (void)environment;
    PyConfig config;
    PyConfig_InitPythonConfig(&config);
    check(PyConfig_SetBytesArgv(&config, argc, argv));
    check(PyConfig_Read(&config));
    check(Py_InitializeFromConfig(&config));
    PyObject *command = text(config.run_command), *name = text(config.run_module),
             *file = text(config.run_filename);
    int isolated = config.safe_path, status = 0;
    PyConfig_Clear(&config);
    PyObject *module = PyImport_ImportModule("_command_line");
    PyObject *ran = module
        ? PyObject_CallMethod(module, "run", "NNNi", command, name, file, isolated)
        : NULL;
    if (!ran) {
        PyErr_Print(); /* ends the process for SystemExit */
        status = 1;
    }
    Py_XDECREF(ran);
    Py_XDECREF(module);
    return Py_FinalizeEx() < 0 ? 120 : status;
}

typedef int (*Start)(int (*)(int, char **, char **), int, char **, void (*)(void), void (*)(void),
                     void (*)(void), void *);

int __libc_start_main(int (*own)(int, char **, char **), int argc, char **argv, void (*init)(void),
                      void (*fini)(void), void (*loader)(void), void *stack) {
    (void)own;
    Start start = (Start)dlsym(RTLD_NEXT, "__libc_start_main");
    return start(run_python, argc, argv, init, fini, loader, stack);
}
