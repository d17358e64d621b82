/* A stub of NVIDIA's driver for a machine without a GPU: it finds no device, and logs every call of cuInit.

       gcc -shared -fPIC -o libcuda.so.1 libcuda.c && ln -s libcuda.so.1 libnvidia-ml.so.1
       LD_LIBRARY_PATH=FOLDER CUINIT_LOG=FILE python ...

   A process that has called cuInit cannot fork processes that use CUDA, so the log shows which processes did. Each call
   adds one line: process id, RANK ("-" if it is not set) and process name, separated by tabs.

   The CUDA runtime opens libcuda.so.1 and looks up its functions with cuGetProcAddress; tested with CUDA 13.0 and torch
   2.14. The library is also a stub of NVML, which torch asks for the number of devices without calling cuInit. */

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SUCCESS = 0, NO_DEVICE = 100, NOT_FOUND = 500 }; /* of CUresult, in cuda.h */
enum { DRIVER_VERSION = 13000 };

static void process_name(char *name, size_t size) {
    int file = open("/proc/self/comm", O_RDONLY);
    ssize_t length = file < 0 ? 0 : read(file, name, size - 1);
    if (file >= 0) close(file);
    name[length < 0 ? 0 : length] = '\0';
    name[strcspn(name, "\n")] = '\0';
}

int cuInit(unsigned int flags) {
    const char *log = getenv("CUINIT_LOG"), *rank = getenv("RANK");
    char name[32], line[128];
    int file = log ? open(log, O_WRONLY | O_CREAT | O_APPEND, 0644) : -1;
    (void)flags;
    if (file >= 0) {
        process_name(name, sizeof name);
        int length = snprintf(line, sizeof line, "%d\t%s\t%s\n", (int)getpid(), rank ? rank : "-", name);
        if (write(file, line, (size_t)length) != length) abort(); /* or a call would be missing from the log */
        close(file);
    }
    return NO_DEVICE;
}

int cuDriverGetVersion(int *version) {
    *version = DRIVER_VERSION;
    return SUCCESS;
}

int cuDeviceGetCount(int *count) {
    *count = 0;
    return SUCCESS;
}

int cuGetExportTable(const void **table, const void *id) {
    (void)id;
    *table = NULL;
    return NOT_FOUND;
}

static int no_device(void) { return NO_DEVICE; }

int cuGetProcAddress_v2(const char *symbol, void **function, int version, uint64_t flags, int *status);

int cuGetProcAddress(const char *symbol, void **function, int version, uint64_t flags) {
    return cuGetProcAddress_v2(symbol, function, version, flags, NULL);
}

/* Finds our own functions by name. Every other name gets a function that finds no device. */
int cuGetProcAddress_v2(const char *symbol, void **function, int version, uint64_t flags, int *status) {
    static const struct { const char *name; void *function; } own[] = {
        {"cuInit", (void *)cuInit}, {"cuDriverGetVersion", (void *)cuDriverGetVersion},
        {"cuDeviceGetCount", (void *)cuDeviceGetCount}, {"cuGetExportTable", (void *)cuGetExportTable},
        {"cuGetProcAddress", (void *)cuGetProcAddress_v2}, {"cuGetProcAddress_v2", (void *)cuGetProcAddress_v2},
    };
    (void)version, (void)flags;
    *function = (void *)no_device;
    for (size_t item = 0; item < sizeof own / sizeof own[0]; item++)
        if (!strcmp(symbol, own[item].name)) *function = own[item].function;
    if (status) *status = 0;
    return SUCCESS;
}

/* NVML, which needs no cuInit. */
int nvmlInit(void) { return 0; }
int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }

int nvmlDeviceGetCount_v2(int *count) {
    *count = 0;
    return 0;
}
