/* What candle calls of NVIDIA's libraries when it opens a device, for `simulated-cuda`: each says that all is
   well, and does nothing. What is not here is never called, and stays unresolved. */

static int handle;

int cublasCreate_v2(void **of) { *of = &handle; return 0; }
int cublasDestroy_v2(void *of) { (void)of; return 0; }
int cublasSetStream_v2(void *of, void *stream) { (void)of; (void)stream; return 0; }

int curandCreateGenerator(void **of, int kind) { (void)kind; *of = &handle; return 0; }
int curandDestroyGenerator(void *of) { (void)of; return 0; }
int curandSetStream(void *of, void *stream) { (void)of; (void)stream; return 0; }
int curandSetPseudoRandomGeneratorSeed(void *of, unsigned long long seed) { (void)of; (void)seed; return 0; }
