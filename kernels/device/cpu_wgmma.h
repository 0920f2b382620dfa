// cpu_wgmma.h -- how the emulation executes wgmma: as late as the device may, and noticing what it may not meet.
//
// An instruction is issued by the whole warpgroup (whose threads must pass the same descriptors); each warp then
// computes its 16 rows on its own, at the wait that covers the instruction's group. In between
//   - the accumulators are NaN: who reads them too early has NaN, who writes them is reported at the wait;
//   - A and B are compared at the wait with what they were at the issue: who changes shared memory, or the
//     registers of A, too early is reported;
//   - ThreadSanitizer sees both reads of shared memory, and no order between the warps but that of barriers.
// Reported, too: a descriptor that does not fit (see check_descriptor), operands outside dynamic shared memory, a
// group that does not begin with wgmma_fence, what cp.async wrote and no fence_proxy_async followed (ordinary
// stores to shared memory need one as well; those the emulation does not see), a thread that returns with
// products under way.
#pragma once
#include "kernels/device/cpu_device.h"

namespace cpu_device {

// Byte offset in dynamic shared memory of an operand's element: `mn` its row (A) or column (B) of the product, k
// the contraction's. 8 rows of 128 bytes lie together, the next 8 at the stride offset; MN-major, 64 columns fill a
// row and the next 64 lie at the leading offset. The swizzle is of address bits: 4-6 ^= 7-9.
inline size_t operand_offset(uint64_t descriptor, bool mn_major, int mn, int k) {
    const size_t start = (descriptor & 0x3fff) << 4, leading = (descriptor >> 16 & 0x3fff) << 4,
                 stride = (descriptor >> 32 & 0x3fff) << 4;
    const int row = mn_major ? k : mn, column = mn_major ? mn % 64 : k;
    const size_t address = start + (mn_major ? size_t(mn / 64) * leading : 0) + size_t(row / 8) * stride +
                           size_t(row % 8 * 128 + column * 2);
    return address ^ (address >> 7 & 7) << 4;
}

inline void check_descriptor(uint64_t descriptor, bool mn_major, const char* file, int line) {
    const uint64_t in_pattern = (descriptor & 0x3f) << 4;  // of the start in the swizzle's 1024 bytes
    if (descriptor >> 62 != 1) fail("wgmma: a descriptor whose swizzle is not of 128 bytes", file, line);
    if (descriptor >> 49 & 7) fail("wgmma: a descriptor with a base offset", file, line);
    if (mn_major ? in_pattern != 0 : in_pattern > 96)
        fail(mn_major ? "wgmma: an MN-major operand that does not start at a multiple of 1024 bytes"
                      : "wgmma: a K-major operand that does not start in the first row of 8, at most 96 "
                        "bytes into it",
             file, line);
}

// A (16 rows of this warp, 16), then B (n, 16), as they are now.
inline std::vector<uint16_t> read_operands(const Product& p) {
    const auto element = [&p](uint64_t descriptor, bool mn_major, int mn, int k) {
        const size_t offset = operand_offset(descriptor, mn_major, mn, k);
        if (offset + 2 > shared_bytes())
            fail("wgmma: an operand outside dynamic shared memory", p.file, p.line);
        if (!fenced(offset))
            fail("wgmma reads what cp.async wrote, and no fence_proxy_async followed", p.file, p.line);
        uint16_t bits;
        memcpy(&bits, static_cast<const char*>(dynamic_shared()) + offset, 2);
        return bits;
    };
    std::vector<uint16_t> out(size_t(16 + p.n) * 16);
    if (p.a[0])
        for (int l = 0; l < 32; l++)
            for (int r = 0; r < 4; r++)
                for (int i = 0; i < 2; i++)
                    out[size_t((l / 4 + r % 2 * 8) * 16 + l % 4 * 2 + r / 2 * 8 + i)] =
                        uint16_t(p.a[l][r] >> i * 16);
    else
        for (int i = 0; i < 16; i++)
            for (int k = 0; k < 16; k++)
                out[size_t(i * 16 + k)] = element(p.a_descriptor, p.a_mn_major, warp_id() % 4 * 16 + i, k);
    for (int j = 0; j < p.n; j++)
        for (int k = 0; k < 16; k++)
            out[size_t((16 + j) * 16 + k)] = element(p.b_descriptor, p.b_mn_major, j, k);
    return out;
}

// The first product under way that writes the accumulators d.
inline Product* next_of(ProductQueue& q, float* d) {
    for (auto& group : q.groups)
        for (Product& p : group)
            if (p.d[0] == d) return &p;
    for (Product& p : q.open)
        if (p.d[0] == d) return &p;
    return nullptr;
}

inline void issue(ProductQueue& q, Product p) {
    if (!q.fenced) fail("a group of wgmma that does not begin with wgmma_fence", p.file, p.line);
    p.operands = read_operands(p);
    const int each = p.n / 2;
    if (!next_of(q, p.d[0]))
        for (int l = 0; l < 32; l++) {
            p.before.insert(p.before.end(), p.d[l], p.d[l] + each);
            memset(p.d[l], 0xff, size_t(each) * sizeof(float));
        }
    q.open.push_back(std::move(p));
}

// D (16, n) [+]= A B; lane l has, with g = l / 4 and t = l % 4, in d[j]: D[g][8j + 2t], D[g][8j + 2t + 1],
// D[g + 8][8j + 2t], D[g + 8][8j + 2t + 1].
inline void complete(ProductQueue& q, const Product& p) {
    if (read_operands(p) != p.operands)
        fail("an operand of wgmma changed before the wait (shared memory, or the registers of A)", p.file,
             p.line);
    const auto value = [&p](int row, int k) {
        return __uint_as_float(uint32_t(p.operands[size_t(row * 16 + k)]) << 16);
    };
    std::vector<float> D(size_t(16 * p.n)), b(size_t(p.n)), after(p.before);
    for (int k = 0; k < 16; k++) {
        for (int j = 0; j < p.n; j++) b[size_t(j)] = value(16 + j, k);
        for (int i = 0; i < 16; i++)
            for (int j = 0; j < p.n; j++) D[size_t(i * p.n + j)] += value(i, k) * b[size_t(j)];
    }
    const int each = p.n / 2;
    for (int l = 0; l < 32; l++)
        for (int e = 0; e < each; e++) {
            const float sum = D[size_t((l / 4 + e / 2 % 2 * 8) * p.n + e / 4 * 8 + l % 4 * 2 + e % 2)];
            float& out = after[size_t(l * each + e)];
            out = p.accumulate ? out + sum : sum;
            if (__float_as_uint(p.d[l][e]) != 0xffffffffu)
                fail("accumulators of wgmma were written before the wait", p.file, p.line);
        }
    if (Product* next = next_of(q, p.d[0])) {
        next->before = std::move(after);
        return;
    }
    for (int l = 0; l < 32; l++) std::copy_n(after.begin() + l * each, each, p.d[l]);
}

inline void wait(ProductQueue& q, size_t pending) {
    while (q.groups.size() > pending) {
        std::vector<Product>& group = q.groups.front();
        while (!group.empty()) {
            const Product p = std::move(group.front());
            group.erase(group.begin());
            complete(q, p);
        }
        q.groups.erase(q.groups.begin());
    }
}

}  // namespace cpu_device
