/* The one function of bcryptprimitives.dll that Rust's standard library imports; Wine 8 lacks it. */
#include <windows.h>

BOOLEAN NTAPI SystemFunction036(void *buffer, ULONG length); /* RtlGenRandom() of advapi32.dll */

__declspec(dllexport) BOOL WINAPI ProcessPrng(unsigned char *data, SIZE_T length) {
    while (length > 0) {
        ULONG part = length < 0x10000000 ? (ULONG)length : 0x10000000;
        if (!SystemFunction036(data, part)) return FALSE;
        data += part;
        length -= part;
    }
    return TRUE;
}
