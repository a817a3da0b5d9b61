// Every launcher of csrc/cuda on small sizes, without Python, so that a sanitizer sees the kernels and nothing else.
//
//     driver SIZES OPERATION [BARRIER]
//
// SIZES is "all", or "few" for the thread sanitizer, which follows every CUDA thread as one of its own. BARRIER,
// "file:line", is removed. Results must have the same bits in several orders of threads and hold no NaN, with which all
// memory is filled.
#include <cuda/adamw_outer.h>
#include <cuda/ambiguity_penalty.h>
#include <cuda/component_penalty.h>
#include <cuda/gate.h>
#include <cuda/mixture.h>
#include <cuda/random_fill.h>
#include <cuda/skinny_linear.h>
#include <cuda/unmixing_loss.h>
#include <cuda_runtime.h>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <exception>
#include <functional>
#include <random>
#include <string>
#include <tuple>
#include <vector>

using namespace spectrafuse;

namespace {

using F = std::vector<float>;

std::mt19937 numbers(1);
int failures = 0;
bool few = false;

template <class T>
std::vector<T> sizes(std::vector<T> all, std::vector<T> some) {
    return few ? some : all;
}

F made(std::int64_t n, float low = -1, float high = 1) {
    F out(static_cast<std::size_t>(n));
    for (float& x : out) x = low + (high - low) * static_cast<float>(numbers() >> 8) * 0x1p-24f;
    return out;
}

Address address(F& of) { return {reinterpret_cast<std::uintptr_t>(of.data())}; }

F unset(std::int64_t n) { return F(static_cast<std::size_t>(n), std::nanf("")); }

void append(std::string& to, const F& from) { to.append(reinterpret_cast<const char*>(from.data()), from.size() * 4); }

void failed(const std::string& name, const std::string& how) {
    std::printf("%s: %s\n", name.c_str(), how.c_str());
    ++failures;
}

// `call` returns the bytes of all results.
void check(const std::string& name, const std::function<std::string()>& call) {
    std::string first;
    for (const char* order : {"forwards", "backwards", "random:1"}) {
        emulated::set_order(order);
        try {
            const std::string got = call();
            if (first.empty()) first = got;
            if (got != first) failed(name, std::string("other bits in order ") + order);
        } catch (const std::exception& e) {
            return failed(name, e.what());
        }
        if (few) break;  // the thread sanitizer finds races in any order
    }
    F values(first.size() / 4);
    std::memcpy(values.data(), first.data(), first.size());
    for (const float x : values)
        if (std::isnan(x)) return failed(name, "a result is NaN");
}

void adamw() {
    for (auto [b, o, i] : sizes<std::tuple<long, long, long>>({{65, 9, 1028}, {3, 8, 257}, {1, 1, 4}, {0, 2, 5}},
                                                              {{65, 9, 4}, {3, 1, 257}, {0, 1, 3}})) {
        const F x = made(b * i), gy = made(b * o), w = made(o * i), m = made(o * i), v = made(o * i, 0);
        check("adamw_outer", [&, b = b, o = o, i = i] {
            F w2 = w, m2 = m, v2 = v;
            F gx = unset(b * i), parts = unset((o + kLinearPart - 1) / kLinearPart * b * i);
            const AdamwOptions options{1e-2, 0.9, 0.999, 1e-8, 1e-2};
            // The second tensor of a launch has few parameters and no samples.
            F w3(3, 1.0f), m3(3, 0.5f), v3(3, 0.25f);
            const AdamwOuter all[2] = {{b, o, i, x.data(), gy.data(), w2.data(), m2.data(), v2.data()},
                                       {0, 1, 3, nullptr, nullptr, w3.data(), m3.data(), v3.data()}};
            adamw_outer_cuda(all, 2, options, 3, nullptr, nullptr);
            if (b > 0 && b <= 64)
                adamw_layer_cuda(all[0], options, 4, nullptr, {x.data(), Activation::tanh}, gx.data(), parts.data(),
                                 nullptr);
            std::string out;
            append(out, w2), append(out, m2), append(out, v2), append(out, w3);
            if (b > 0 && b <= 64) append(out, gx);
            return out;
        });
    }
}
void gates() {
    for (auto [b, n] : sizes<std::pair<long, long>>({{2, 65}, {1, 1}}, {{2, 65}})) {
        const F e = made(b * n * 2), g = made(b * n * 2), l = made(b * n * 2), gp = made(b * n), ge = made(b * n * 2);
        check("gate", [&, b = b, n = n] {
            F prob = unset(b * n), energy = unset(2 * b * n), sums = unset(3);
            std::vector<double> work(3 * gate_blocks(n));
            std::vector<unsigned char> used(n);
            gate_forward_cuda({b,
                               n,
                               0.1,
                               0.5,
                               -1.0,
                               0.5,
                               e.data(),
                               g.data(),
                               true,
                               l.data(),
                               prob.data(),
                               energy.data(),
                               {&sums[0], &sums[1], &sums[2]},
                               reinterpret_cast<bool*>(used.data())},
                              work.data(), nullptr);
            F grad = unset(2 * b * n);
            gate_backward_cuda({b,
                                n,
                                0.5,
                                false,
                                prob.data(),
                                energy.data(),
                                gp.data(),
                                ge.data(),
                                {&sums[0], &sums[1], &sums[2]},
                                grad.data()},
                               nullptr);
            std::string out;
            append(out, prob), append(out, energy), append(out, sums), append(out, grad);
            append(out, F(used.begin(), used.end()));
            return out;
        });
    }
}
void mixtures(bool sparse) {
    struct Size {
        long b, n, d;
        bool forward, backward;
    };
    for (const Size& s : sizes<Size>({{17, 33, 131, true, false}, {17, 2, 131, false, true}, {1, 1, 1, true, true}},
                                     {{17, 2, 131, true, true}})) {
        const long b = sparse && s.b > 5 ? 5 : s.b, n = s.n, d = s.d;
        const F c = made(b * n, 0), p = made(b * n, 0), raw = made(n * d), up = made(b * d), e = made(2 * n * d),
                scalar = made(2), signed_c = made(b * n);
        const std::int64_t rng[2] = {7, 3};
        check(sparse ? "sparse_gated_mixture" : "gated_mixture", [&] {
            F lengths = unset(n), weights = unset(n * b), parts = unset(mixture_parts(n) * b * d), y = unset(b * d),
              sums = unset(2);
            F before = signed_c, gc = unset(b * n), gp = unset(b * n), graw = unset(n * d), ge = unset(2 * n * d);
            const MixturePool pool{b, n, d, true, 2, c.data(), p.data(), raw.data()};
            const MixtureWorkspace w(Addresses<4>{address(lengths), address(weights), address(parts), address(before)});
            const SparsityGates gates{e.data(), rng, nullptr, false, nullptr, 0.1, 0.1, 0.5};
            std::vector<double> work(2 * sparse_blocks(b, n, d));
            std::string out;
            if (s.forward && sparse)
                sparse_gated_mixture_forward_cuda({pool, gates, y.data(), &sums[0], &sums[1]}, w, work.data(), nullptr),
                    append(out, y), append(out, sums);
            if (s.forward && !sparse) gated_mixture_forward_cuda({pool, y.data()}, w, nullptr), append(out, y);
            if (s.backward && sparse)
                sparse_gated_mixture_backward_cuda(
                    {pool, gates, up.data(), &scalar[0], &scalar[1], gc.data(), gp.data(), graw.data(), ge.data()}, w,
                    nullptr),
                    append(out, ge);
            if (s.backward && !sparse)
                gated_mixture_backward_cuda({pool, up.data(), gc.data(), gp.data(), graw.data()}, w, nullptr);
            if (s.backward) append(out, gc), append(out, gp), append(out, graw);
            return out;
        });
    }
}
void linear() {
    for (auto [b, i, o] : sizes<std::tuple<long, long, long>>(
             {{17, 33, 9}, {17, 132, 18}, {1, 1, 1}, {17, 130, 257}, {2, 260, 129}}, {{1, 36, 9}, {1, 5, 129}})) {
        const F x = made(b * i), w = made(o * i), bias = made(o), gy = made(b * o);
        check("skinny_linear", [&, b = b, i = i, o = o] {
            F y = unset(b * o), before = unset(b * o), gx = unset(b * i),
              parts = unset((o + kLinearPart - 1) / kLinearPart * b * i);
            if (o < 100)
                skinny_linear_forward_cuda(
                    {b, i, o, Activation::abs, x.data(), w.data(), bias.data(), y.data(), before.data()}, nullptr);
            skinny_linear_backward_cuda({b, i, o, w.data(), gy.data(), gx.data()}, {x.data(), Activation::relu},
                                        parts.data(), nullptr);
            std::string out;
            if (o < 100) append(out, y), append(out, before);
            append(out, gx);
            return out;
        });
    }
}
void penalty() {
    const PairKind kinds[] = {PairKind::rbf, PairKind::poly, PairKind::laplacian};
    for (auto [n, d, masked] : sizes<std::tuple<long, long, bool>>(
             {{130, 17, true}, {65, 65, false}, {66, 20, true}, {1, 1, false}}, {{68, 20, true}}))
        for (const PairKind kind : kinds) {
            if (few && kind != PairKind::rbf) continue;
            const F x = made(n * d);
            std::vector<std::int64_t> order(n);
            for (long i = 0; i < n; ++i) order[i] = n - 1 - i;
            const std::int64_t selected = n - 3;
            check("ambiguity_penalty", [&, n = n, d = d, masked = masked] {
                F gradient = unset(n * d), value = unset(1);
                std::vector<char> work(ambiguity_penalty_workspace_cuda(n, 0, true), '\xFF');
                ambiguity_penalty_cuda({{n, d, {kind, 2, 1.0, 1.5, 2.8}, x.data(), gradient.data(), work.data()},
                                        masked ? order.data() : nullptr,
                                        masked ? &selected : nullptr,
                                        value.data()},
                                       0, nullptr);
                std::string out;
                append(out, gradient), append(out, value);
                return out;
            });
        }
}
void used_components() {
    for (auto [n, d, norm] :
         sizes<std::tuple<long, long, int>>({{131, 17, 2}, {66, 130, 1}, {1, 1, 0}}, {{131, 3, 2}})) {
        const F raw = made(n * d), other = made(n * d);
        check("component_penalty", [&, n = n, d = d, norm = norm] {
            F gradient = other, value = unset(1), lengths = unset(n), spectra = unset(n * d), own = unset(n * d);
            std::vector<std::int64_t> order(n + 1, -1);
            std::vector<char> used(n), pairs(ambiguity_penalty_workspace_cuda(n, 0, true), '\xFF');
            for (long i = 0; i < n; ++i) used[i] = i % 3 != 1;
            const auto at = [](auto& of) { return Address{reinterpret_cast<std::uintptr_t>(of.data())}; };
            component_penalty_cuda({{0, n, d, true, norm, nullptr, nullptr, raw.data()},
                                    reinterpret_cast<const bool*>(used.data()),
                                    {PairKind::rbf, 2, 1.0, 1.5, 2.8},
                                    0.5,
                                    gradient.data()},
                                   Addresses<5>{at(order), at(lengths), at(spectra), at(own), at(pairs)}, value.data(),
                                   nullptr);
            std::string out;
            append(out, gradient), append(out, value), append(out, F(order.begin(), order.end()));
            return out;
        });
    }
}
void losses() {
    for (auto [b, d] : sizes<std::pair<long, long>>({{3, 515}, {1, 1}}, {{3, 200}})) {
        const F mixture = made(b * d), x = made(b * d), numbers = made(6);
        check("unmixing_loss", [&, b = b, d = d] {
            F grad = unset(b * d), slopes = unset(2), result = unset(2);
            std::vector<double> sums(unmixing_loss_blocks(b, d), std::nan(""));
            const UnmixingLoss loss{b,
                                    d,
                                    0.1,
                                    0.2,
                                    30,
                                    60,
                                    mixture.data(),
                                    x.data(),
                                    &numbers[0],
                                    {&numbers[1], &numbers[2], &numbers[3]},
                                    &numbers[4],
                                    &numbers[5],
                                    grad.data(),
                                    slopes.data(),
                                    result.data()};
            unmixing_loss_gradient_cuda(loss, sums.data(), nullptr);
            unmixing_loss_cuda(loss, sums.data(), nullptr);
            std::string out;
            append(out, grad), append(out, slopes), append(out, result);
            return out;
        });
    }
}
void random_numbers() {
    for (const long n : sizes<long>({1, 255, 257, 513}, {3}))
        for (const Distribution kind : {Distribution::uniform, Distribution::normal, Distribution::logistic})
            check("random_fill", [&] {
                F out = unset(n);
                std::vector<double> wide(n, std::nan(""));
                random_fill_cuda({kind, 3, 5, n, 0.25, 2.0, out.data()}, 0, nullptr);
                random_fill_cuda({kind, 3, 5, n, 0.25, 2.0, wide.data()}, 1, nullptr);
                std::string bytes;
                append(bytes, out), append(bytes, F(wide.begin(), wide.end()));
                return bytes;
            });
}
}  // namespace

int main(int argc, char** argv) {
    if (argc < 3) return 2;
    few = std::string(argv[1]) == "few";
    if (argc > 3) emulated::remove_barrier(argv[3]);
    const std::string operation = argv[2];
    if (operation == "adamw_outer") adamw();
    if (operation == "gate") gates();
    if (operation == "gated_mixture") mixtures(false);
    if (operation == "sparse_gated_mixture") mixtures(true);
    if (operation == "skinny_linear") linear();
    if (operation == "ambiguity_penalty") penalty();
    if (operation == "component_penalty") used_components();
    if (operation == "unmixing_loss") losses();
    if (operation == "random_fill") random_numbers();
    std::printf("%d failures, %ld launches\n", failures, emulated::launches());
    return failures != 0 || emulated::launches() == 0;
}
