// Schedules all pairs of blocks so that no two threads touch one block at a time.
//
// The blocks form an even number of teams, or one. In the first round every team meets itself; in the others the teams
// meet as in a round-robin tournament, each in one pairing a round. The rounds do not depend on the number of threads,
// so neither does the order in which anything is added.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <utility>
#include <vector>

#include "parallel.h"

namespace spectrafuse {

struct Teams {
    static constexpr std::int64_t kMost = 32;
    std::int64_t blocks, count;

    explicit Teams(std::int64_t blocks)
        : blocks(blocks), count(blocks == 1 ? 1 : (std::min(blocks, kMost) + 1) / 2 * 2) {}

    std::int64_t begin(std::int64_t team) const { return blocks * team / count; }
    std::int64_t rounds() const { return count; }
    std::int64_t pairings(std::int64_t round) const { return round == 0 ? count : count / 2; }

    // The two teams of a pairing. One team keeps its place, the others move around a circle by one a round.
    std::pair<std::int64_t, std::int64_t> of(std::int64_t round, std::int64_t pairing) const {
        if (round == 0) return {pairing, pairing};
        const std::int64_t circle = count - 1;
        const std::int64_t one = pairing == 0 ? circle : (round + pairing) % circle;
        return {one, (round + circle - pairing) % circle};
    }
};

// Calls body(image, one, other, thread) once for every unordered pair of blocks, also equal ones, of `images` sets of
// `blocks`, and returns the sum of what it returns.
template <class Body>
double sum_over_pairs(std::int64_t images, std::int64_t blocks, int threads, const Body& body) {
    const Teams teams(blocks);
    std::vector<double> sums(static_cast<std::size_t>(images * teams.count));
    double total = 0;
    for (std::int64_t round = 0; round < teams.rounds(); ++round) {
        const std::int64_t pairings = teams.pairings(round);
        std::fill(sums.begin(), sums.end(), 0.0);
        parallel_shares(images * pairings, threads, [&](std::int64_t begin, std::int64_t end, int thread) {
            for (std::int64_t task = begin; task < end; ++task) {
                const auto [one, other] = teams.of(round, task % pairings);
                for (std::int64_t i = teams.begin(one); i < teams.begin(one + 1); ++i)
                    for (std::int64_t j = round == 0 ? i : teams.begin(other); j < teams.begin(other + 1); ++j)
                        sums[task] += body(task / pairings, i, j, thread);
            }
        });
        total = std::accumulate(sums.begin(), sums.end(), total);
    }
    return total;
}

}  // namespace spectrafuse
