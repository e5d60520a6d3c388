/* The python command for Windows: python3.dll's neighbour PYTHON_DLL does all of it. */
#include <stdio.h>
#include <windows.h>

typedef int (*Main)(int, wchar_t **);

int wmain(int argc, wchar_t **argv) {
    HMODULE library = LoadLibraryA(PYTHON_DLL);
    Main run = library ? (Main)(void *)GetProcAddress(library, "Py_Main") : NULL;
    if (!run) {
        fprintf(stderr, "cannot use %s: error %lu\n", PYTHON_DLL, GetLastError());
        return 127;
    }
    return run(argc, argv);
}
