#include <cuda_runtime.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define EMULATED_ASAN 1
#endif
#if defined(EMULATED_TSAN)
extern "C" {
void* __tsan_get_current_fiber(void);
void* __tsan_create_fiber(unsigned flags);
void __tsan_destroy_fiber(void* fiber);
void __tsan_switch_to_fiber(void* fiber, unsigned flags);
void __tsan_acquire(void* address);
void __tsan_release(void* address);
}
#endif

namespace emulated {

const Place* place = nullptr;

namespace {

constexpr std::size_t kStack = 64 * 1024, kStaticShared = 48 * 1024, kGap = 64;

enum class Wait { none, block, warp, ended };

struct Fiber {
    Place place;
    ucontext_t context;  // where it begins
    void* resume[5];     // where it goes on, once it has begun
    bool begun = false;
    std::unique_ptr<char[]> stack;
    unsigned number = 0, mask = 0, barriers = 0;
    Wait wait = Wait::none;
    const char* file = nullptr;
    int line = 0;
    void* tsan = nullptr;
};

struct Warp {
    std::uint64_t bits[2][32];
    unsigned present[2] = {0, 0}, turn = 0, alive = 0, waiting = 0, mask = 0;
};

struct Block {
    std::vector<Fiber> fibers;
    std::vector<Warp> warps;
    std::deque<unsigned> ready;
    std::unique_ptr<char[]> arena;
    std::size_t used = 0, variables = 0;
    std::unordered_map<const void*, void*> shared;
    char synchronised[2];  // what the sanitizer knows the barrier by: even ones and odd ones
    unsigned ended = 0, at_barrier = 0;
};

Block* block_now = nullptr;
Fiber* fiber_now = nullptr;
const std::function<void()>* body_now = nullptr;
ucontext_t scheduler;
void* scheduler_resume[5];
std::vector<std::unique_ptr<char[]>> stacks;  // free ones
std::string problem;
cudaError_t last_error = cudaSuccess;
std::mt19937_64 random_numbers;
bool random_order = false, backwards = false;
long launched = 0;
std::string removed_barrier;
#ifdef EMULATED_TSAN
char launch_begun, launch_ended;
#endif

#ifdef EMULATED_ASAN
const void* scheduler_stack = nullptr;
std::size_t scheduler_size = 0;
#endif
#ifdef EMULATED_TSAN
void* scheduler_fiber = nullptr;
#endif

void fail(const std::string& what) {
    if (problem.empty()) problem = what;
}

// The compiler's own jumps: nothing intercepts them, and unlike swapcontext they make no call to the system.
[[noreturn]] __attribute__((noipa)) void jump(void** to) { __builtin_longjmp(to, 1); }
__attribute__((noipa)) void leave_fiber(Fiber& self) {
    if (__builtin_setjmp(self.resume) == 0) jump(scheduler_resume);
}
__attribute__((noipa)) void enter_fiber(Fiber& fiber) {
    if (__builtin_setjmp(scheduler_resume) != 0) return;
    if (fiber.begun) jump(fiber.resume);
    fiber.begun = true;
    swapcontext(&scheduler, &fiber.context);
}

void to_scheduler(bool ending) {
    Fiber* self = fiber_now;
#ifdef EMULATED_TSAN
    __tsan_switch_to_fiber(scheduler_fiber, 1);
#endif
#ifdef EMULATED_ASAN
    void* fake = nullptr;
    __sanitizer_start_switch_fiber(ending ? nullptr : &fake, scheduler_stack, scheduler_size);
#endif
    (void)ending;
    leave_fiber(*self);
#ifdef EMULATED_ASAN
    __sanitizer_finish_switch_fiber(fake, &scheduler_stack, &scheduler_size);
#endif
}

void enter() {
#ifdef EMULATED_ASAN
    __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_size);
#endif
#ifdef EMULATED_TSAN
    __tsan_acquire(&launch_begun);
#endif
    (*body_now)();
#ifdef EMULATED_TSAN
    __tsan_release(&launch_ended);
#endif
    fiber_now->wait = Wait::ended;
    to_scheduler(true);
    std::abort();
}

void to_fiber(Fiber& fiber) {
    fiber_now = &fiber;
    place = &fiber.place;
    fiber.wait = Wait::none;
#ifdef EMULATED_ASAN
    void* fake = nullptr;
    __sanitizer_start_switch_fiber(&fake, fiber.stack.get(), kStack);
#endif
#ifdef EMULATED_TSAN
    __tsan_switch_to_fiber(fiber.tsan, 1);
#endif
    enter_fiber(fiber);
#ifdef EMULATED_ASAN
    __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
    place = nullptr;
}

// Lets the fibers of a warp go on where every one that has not ended is at the same exchange.
void try_warp(Block& b, Fiber& f) {
    Warp& w = b.warps[f.number / 32];
    const unsigned lane = 1u << f.number % 32, begin = f.number / 32 * 32;
    if (f.wait == Wait::ended) w.alive &= ~lane;
    if (f.wait == Wait::warp) {
        if (w.waiting != 0 && w.mask != f.mask) fail("lanes of a warp exchange under different masks");
        w.waiting |= lane;
        w.mask = f.mask;
    }
    if (w.waiting == 0 || (w.alive & w.mask) != w.waiting) return;
    // Values of one exchange stay while lanes go on to the next, which takes the other half.
    w.present[w.turn] = w.waiting;
    w.turn ^= 1;
    for (unsigned left = w.waiting; left != 0; left &= left - 1) {
        const unsigned number = begin + __builtin_ctz(left);
        b.fibers[number].wait = Wait::none;
        b.ready.push_back(number);
    }
    w.waiting = 0;
}

void try_barrier(Block& b) {
    if (b.at_barrier == 0 || b.at_barrier + b.ended != b.fibers.size()) return;
    const Fiber* first = nullptr;
    for (unsigned i = 0; i < b.fibers.size(); ++i) {
        Fiber& f = b.fibers[i];
        if (f.wait != Wait::block) continue;
        if (first != nullptr && (first->line != f.line || std::strcmp(first->file, f.file) != 0))
            fail("threads of a block wait at different barriers: " + std::string(f.file) + ":" +
                 std::to_string(f.line) + " and :" + std::to_string(first->line));
        first = &f;
        f.wait = Wait::none;
        b.ready.push_back(i);
    }
    b.at_barrier = 0;
}

void run_block(Block& b) {
    block_now = &b;
    for (unsigned i = 0; i < b.fibers.size(); ++i) b.ready.push_back(i);
    while (!b.ready.empty() && problem.empty()) {
        std::size_t at = 0;
        if (random_order)
            at = random_numbers() % b.ready.size();
        else if (backwards)
            at = b.ready.size() - 1;
        const unsigned number = b.ready[at];
        if (random_order || backwards) {
            b.ready[at] = b.ready.back();
            b.ready.pop_back();
        } else {
            b.ready.pop_front();
        }
        Fiber& f = b.fibers[number];
        to_fiber(f);
        if (f.wait == Wait::ended) ++b.ended;
        if (f.wait == Wait::block) ++b.at_barrier;
        try_warp(b, f);
        try_barrier(b);
    }
    if (problem.empty() && b.ended != b.fibers.size()) {
        std::string text = "threads wait for each other for ever:";
        for (const Fiber& f : b.fibers)
            if (f.wait == Wait::block || f.wait == Wait::warp) {
                text += " thread " + std::to_string(f.number) +
                        (f.wait == Wait::block ? " at a barrier" : " at an exchange");
                break;
            }
        fail(text);
    }
    block_now = nullptr;
}

std::unique_ptr<Block> make_block(dim3 grid, dim3 block, uint3 at) {
    auto b = std::make_unique<Block>();
    const unsigned threads = block.x * block.y * block.z;
    b->arena.reset(new char[kStaticShared + 64 * kGap]);
    std::memset(b->arena.get(), 0xFF, kStaticShared + 64 * kGap);
#ifdef EMULATED_ASAN
    __asan_poison_memory_region(b->arena.get(), kStaticShared + 64 * kGap);
#endif
    b->fibers.resize(threads);
    b->warps.resize((threads + 31) / 32);
    b->shared.reserve(64);
    for (unsigned i = 0; i < threads; ++i) {
        Fiber& f = b->fibers[i];
        f.number = i;
        b->warps[i / 32].alive |= 1u << i % 32;
        f.place = {{i % block.x, i / block.x % block.y, i / (block.x * block.y)}, at, block, grid};
        if (stacks.empty())
            f.stack.reset(new char[kStack]);
        else
            f.stack = std::move(stacks.back()), stacks.pop_back();
        getcontext(&f.context);
        f.context.uc_stack.ss_sp = f.stack.get();
        f.context.uc_stack.ss_size = kStack;
        f.context.uc_link = nullptr;
        makecontext(&f.context, &enter, 0);
#ifdef EMULATED_TSAN
        f.tsan = __tsan_create_fiber(0);
#endif
    }
    return b;
}

void take_block_down(std::unique_ptr<Block> b) {
#ifdef EMULATED_ASAN
    __asan_unpoison_memory_region(b->arena.get(), kStaticShared + 64 * kGap);
    for (Fiber& f : b->fibers) __asan_unpoison_memory_region(f.stack.get(), kStack);
#endif
#ifndef EMULATED_TSAN
    for (Fiber& f : b->fibers) stacks.push_back(std::move(f.stack));
#endif
#ifdef EMULATED_TSAN
    for (Fiber& f : b->fibers) __tsan_destroy_fiber(f.tsan);
#endif
}

bool is_removed(const char* file, int line) {
    return !removed_barrier.empty() && removed_barrier == std::string(file) + ":" + std::to_string(line);
}

}  // namespace

void check_address(std::uintptr_t address, std::size_t bytes) {
    if (address % bytes != 0) fail(std::to_string(bytes) + " bytes at an address that is no multiple of it");
}

void set_order(const std::string& order) {
    backwards = order == "backwards";
    random_order = order.rfind("random:", 0) == 0;
    if (!backwards && !random_order && order != "forwards") throw std::invalid_argument("no such order: " + order);
    if (random_order) random_numbers.seed(std::stoull(order.substr(7)));
}

long launches() { return launched; }

void remove_barrier(const std::string& place) { removed_barrier = place; }

void* shared_memory(const void* key, std::size_t bytes, std::size_t alignment) {
    Block& b = *block_now;
    const auto found = b.shared.find(key);
    if (found != b.shared.end()) return found->second;
    const std::size_t begin = (b.used + b.variables * kGap + kGap + 15) / 16 * 16;
    (void)alignment;
    if (b.used + bytes > kStaticShared || ++b.variables > 60) {
        std::fprintf(stderr, "more than 48 KiB of static shared memory\n");
        std::abort();
    }
    b.used += bytes;
    char* to = b.arena.get() + begin;
#ifdef EMULATED_ASAN
    __asan_unpoison_memory_region(to, bytes);
#endif
    b.shared[key] = to;
    return to;
}

void barrier(const char* file, int line) {
    if (is_removed(file, line)) return;
    Fiber& f = *fiber_now;
    f.wait = Wait::block;
    f.file = file;
    f.line = line;
    const unsigned turn = f.barriers++ & 1;
#ifdef EMULATED_TSAN
    __tsan_release(&block_now->synchronised[turn]);
#else
    (void)turn;
#endif
    to_scheduler(false);
#ifdef EMULATED_TSAN
    __tsan_acquire(&block_now->synchronised[turn]);
#endif
}

std::uint64_t exchange(unsigned mask, std::uint64_t bits, int source_xor) {
    Fiber& f = *fiber_now;
    Block& b = *block_now;
    Warp& w = b.warps[f.number / 32];
    const unsigned lane = f.number % 32, turn = w.turn, source = lane ^ static_cast<unsigned>(source_xor);
    if (!(mask >> lane & 1)) fail("a lane exchanges under a mask without itself");
    w.bits[turn][lane] = bits;
    f.wait = Wait::warp;
    f.mask = mask;
    to_scheduler(false);
    if (source >= 32 || !(w.present[turn] >> source & 1)) {
        fail("a lane takes the value of one that takes no part");
        return ~std::uint64_t{0};
    }
    return w.bits[turn][source];
}

void run(dim3 grid, dim3 block, std::size_t dynamic_shared, const std::function<void()>& body) {
    const std::size_t threads = std::size_t{block.x} * block.y * block.z;
    if (threads == 0 || threads > 1024 || block.z > 64 || grid.x == 0 || grid.y == 0 || grid.z == 0 ||
        grid.x > 0x7FFFFFFFu || grid.y > 65535 || grid.z > 65535 || dynamic_shared > kStaticShared) {
        last_error = cudaErrorInvalidConfiguration;
        return;
    }
    problem.clear();
    body_now = &body;
    std::vector<uint3> blocks;
    for (unsigned z = 0; z < grid.z; ++z)
        for (unsigned y = 0; y < grid.y; ++y)
            for (unsigned x = 0; x < grid.x; ++x) blocks.push_back({x, y, z});
    if (random_order) std::shuffle(blocks.begin(), blocks.end(), random_numbers);
    if (backwards) std::reverse(blocks.begin(), blocks.end());
    ++launched;
    std::vector<std::unique_ptr<Block>> kept;
#ifdef EMULATED_TSAN
    scheduler_fiber = __tsan_get_current_fiber();
    __tsan_release(&launch_begun);
#endif
    for (const uint3 at : blocks) {
        auto b = make_block(grid, block, at);
        run_block(*b);
        // What blocks do is not ordered between them: under the thread sanitizer their memory is kept till all ended.
#ifdef EMULATED_TSAN
        kept.push_back(std::move(b));
#else
        if (problem.empty())
            take_block_down(std::move(b));
        else
            kept.push_back(std::move(b));
#endif
        if (!problem.empty()) break;
    }
#ifdef EMULATED_TSAN
    __tsan_acquire(&launch_ended);
#endif
    body_now = nullptr;
    if (!problem.empty()) {
        for (auto& b : kept) (void)b.release();  // stacks of fibers that never end
        throw std::runtime_error("emulated launch: " + problem);
    }
    for (auto& b : kept) take_block_down(std::move(b));
}

}  // namespace emulated

cudaError_t cudaGetLastError() {
    const cudaError_t error = emulated::last_error;
    emulated::last_error = cudaSuccess;
    return error;
}
const char* cudaGetErrorString(cudaError_t error) {
    return error == cudaSuccess                     ? "no error"
           : error == cudaErrorInvalidConfiguration ? "invalid configuration argument"
                                                    : "invalid argument";
}
cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
cudaError_t cudaSetDevice(int) { return cudaSuccess; }
cudaError_t cudaGetDeviceCount(int* count) { return *count = 1, cudaSuccess; }
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int) {
    *p = {"emulated", 7, 5, 1, std::size_t{1} << 34};
    return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) { return *version = 12080, cudaSuccess; }
cudaError_t cudaDriverGetVersion(int* version) { return *version = 12080, cudaSuccess; }
cudaError_t emulated_malloc(void** to, std::size_t bytes) { return *to = std::malloc(bytes), cudaSuccess; }
cudaError_t cudaFree(void* p) { return std::free(p), cudaSuccess; }
cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind) {
    return std::memcpy(to, from, bytes), cudaSuccess;
}
