/* A libnvidia-ml.so.1 with two GPUs, as far as the readings ask. The second has no power sensor, and no
   function tells a fan's speed. FAKE_NVML_INIT and FAKE_NVML_READ are error codes to answer with.
   FAKE_NVML_TEMPERATURES names a file with both temperatures; one below 0 is an error code to answer with.
   FAKE_NVML_OTHER is the pid of another process that holds 6.1 GiB of the first GPU. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, INSUFFICIENT_SIZE = 7 };
#define MIB (1024ull * 1024ull)

typedef struct { int index; } gpu;
typedef struct { unsigned long long total, free, used; } memory_info;
typedef struct { unsigned int gpu, memory; } utilization;
typedef struct { unsigned int pid; unsigned long long used; unsigned int instance, compute_instance; } process_info;

static gpu gpus[2] = {{0}, {1}};

static int code(const char *variable) {
    const char *value = getenv(variable);
    return value ? atoi(value) : SUCCESS;
}

int nvmlInitWithFlags(unsigned int flags) { (void)flags; return code("FAKE_NVML_INIT"); }
int nvmlShutdown(void) { return SUCCESS; }
int nvmlSystemGetDriverVersion(char *text, unsigned int size) { strncpy(text, "570.86.10", size); return SUCCESS; }
int nvmlSystemGetCudaDriverVersion_v2(int *version) { *version = 12080; return SUCCESS; }
int nvmlDeviceGetCount_v2(unsigned int *count) { *count = 2; return SUCCESS; }

int nvmlDeviceGetHandleByIndex_v2(unsigned int index, gpu **found) {
    if (index > 1) return INVALID_ARGUMENT;
    *found = &gpus[index];
    return SUCCESS;
}

int nvmlDeviceGetName(gpu *card, char *text, unsigned int size) {
    strncpy(text, card->index ? "Fake RTX 3060" : "Fake H200", size);
    return SUCCESS;
}

int nvmlDeviceGetUUID(gpu *card, char *text, unsigned int size) {
    strncpy(text, card->index ? "GPU-bbbb" : "GPU-aaaa", size);
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo(gpu *card, memory_info *memory) {
    memory->total = (card->index ? 12288 : 143771) * MIB;
    memory->used = 1000 * MIB;
    memory->free = memory->total - memory->used;
    return SUCCESS;
}

int nvmlDeviceGetTemperature(gpu *card, unsigned int sensor, unsigned int *celsius) {
    int both[2] = {44, 71};
    const char *path = getenv("FAKE_NVML_TEMPERATURES");
    FILE *file = path ? fopen(path, "r") : NULL;
    (void)sensor;
    if (file) {
        if (fscanf(file, "%d %d", &both[0], &both[1]) != 2) both[0] = both[1] = -15;
        fclose(file);
    }
    if (both[card->index] < 0) return -both[card->index];
    *celsius = both[card->index];
    return code("FAKE_NVML_READ");
}

/* Shutdown is 0, slowdown 1. The second card tells neither. */
int nvmlDeviceGetTemperatureThreshold(gpu *card, unsigned int kind, unsigned int *celsius) {
    *celsius = kind ? 89 : 95;
    return card->index ? NOT_SUPPORTED : SUCCESS;
}

int nvmlDeviceGetPowerUsage(gpu *card, unsigned int *milliwatts) {
    *milliwatts = 123450;
    return card->index ? NOT_SUPPORTED : SUCCESS;
}

int nvmlDeviceGetEnforcedPowerLimit(gpu *card, unsigned int *milliwatts) {
    *milliwatts = 700000;
    return card->index ? NOT_SUPPORTED : SUCCESS;
}

int nvmlDeviceGetUtilizationRates(gpu *card, utilization *rates) {
    rates->gpu = card->index ? 0 : 97;
    rates->memory = 5;
    return SUCCESS;
}

/* The caller itself computes on the first GPU, and also draws there beside a process that has ended. */
int nvmlDeviceGetComputeRunningProcesses_v3(gpu *card, unsigned int *count, process_info *found) {
    const char *other = getenv("FAKE_NVML_OTHER");
    unsigned int needed = other ? 2 : 1;
    if (card->index) { *count = 0; return SUCCESS; }
    if (*count < needed) { *count = needed; return INSUFFICIENT_SIZE; }
    *count = needed;
    found[0] = (process_info){getpid(), 900 * MIB, 0, 0};
    if (other) found[1] = (process_info){(unsigned int)atoi(other), 6247 * MIB, 0, 0};
    return SUCCESS;
}

int nvmlDeviceGetGraphicsRunningProcesses_v3(gpu *card, unsigned int *count, process_info *found) {
    if (card->index) { *count = 0; return SUCCESS; }
    if (*count < 2) { *count = 2; return INSUFFICIENT_SIZE; }
    *count = 2;
    found[0] = (process_info){2147483647u, ~0ull, 0, 0};
    found[1] = (process_info){getpid(), 900 * MIB, 0, 0};
    return SUCCESS;
}
