// Aligned memory, and a grid's planes either all in memory or in a file of which a window is mapped.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <system_error>
#include <vector>

#include "kernels.hpp"

namespace nca {

// Grows and never shrinks; what it held is lost when it grows.
class Buffer {
   public:
    Buffer() = default;
    explicit Buffer(std::size_t bytes) { reserve(bytes); }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    Buffer(Buffer&& other) noexcept : data_(other.data_), bytes_(other.bytes_) { other.data_ = nullptr; }
    ~Buffer() { std::free(data_); }

    void reserve(std::size_t bytes) {
        bytes = (bytes + kAlignment - 1) / kAlignment * kAlignment;
        if (bytes <= bytes_) return;
        std::free(data_);
        bytes_ = 0;
        data_ = std::aligned_alloc(kAlignment, bytes);
        if (data_ == nullptr) throw std::bad_alloc();
        bytes_ = bytes;
    }

    // Null where nothing was reserved.
    template <class T>
    T* as(std::size_t byte_offset = 0) const {
        return reinterpret_cast<T*>(static_cast<char*>(data_) + byte_offset);
    }

   private:
    void* data_ = nullptr;
    std::size_t bytes_ = 0;
};

constexpr std::size_t kChunkBytes = 8u << 20;  // mapped at once: few calls, little more than is needed

// Planes of equal size. In memory all are addressable; in a file only those of the last window() are.
class Planes {
   public:
    // file: descriptor of an empty file opened for reading and writing, or -1 for memory.
    Planes(int count, std::size_t plane_bytes, int file) : count_(count), file_(file), plane_bytes_(plane_bytes) {
        if (file_ < 0) {
            memory_.reserve(static_cast<std::size_t>(count) * plane_bytes_);
            return;
        }
        const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
        plane_bytes_ = (plane_bytes + page - 1) / page * page;
        per_chunk_ = static_cast<int>(kChunkBytes / plane_bytes_) > 0 ? static_cast<int>(kChunkBytes / plane_bytes_) : 1;
        chunks_.resize((count + per_chunk_ - 1) / per_chunk_, nullptr);
        const int refused = reserve(file_, static_cast<off_t>(count) * static_cast<off_t>(plane_bytes_));
        if (refused != 0) throw std::system_error(refused, std::generic_category(), "no room for the file of states");
    }
    Planes(const Planes&) = delete;
    Planes& operator=(const Planes&) = delete;
    ~Planes() {
        for (std::size_t chunk = 0; chunk < chunks_.size(); ++chunk) unmap(chunk);
    }

    float* operator[](int x) const {
        if (file_ < 0) return memory_.as<float>(static_cast<std::size_t>(x) * plane_bytes_);
        char* chunk = static_cast<char*>(chunks_[x / per_chunk_]);
        return reinterpret_cast<float*>(chunk + static_cast<std::size_t>(x % per_chunk_) * plane_bytes_);
    }

    // Make planes low .. high - 1 addressable (clipped to those there are) and let go of all others.
    void window(int low, int high) {
        if (file_ < 0) return;
        low = low < 0 ? 0 : low;
        high = high > count_ ? count_ : high;
        if (low >= high) return;
        const std::size_t first = low / per_chunk_, last = (high - 1) / per_chunk_;
        for (std::size_t chunk = 0; chunk < chunks_.size(); ++chunk) {
            if (chunk < first || chunk > last) unmap(chunk);
            else if (chunks_[chunk] == nullptr) map(chunk);
        }
    }

   private:
    // The disk's blocks are taken now: a disk that is full when a mapped page is written to kills the process.
    static int reserve(int file, off_t bytes) {
#if defined(__linux__)
        return posix_fallocate(file, 0, bytes);
#else
        return ftruncate(file, bytes) == 0 ? 0 : errno;
#endif
    }

    std::size_t bytes_of(std::size_t chunk) const {
        const int first = static_cast<int>(chunk) * per_chunk_;
        const int planes = count_ - first < per_chunk_ ? count_ - first : per_chunk_;
        return static_cast<std::size_t>(planes) * plane_bytes_;
    }

    void map(std::size_t chunk) {
        const off_t offset = static_cast<off_t>(chunk) * per_chunk_ * static_cast<off_t>(plane_bytes_);
        void* place = mmap(nullptr, bytes_of(chunk), PROT_READ | PROT_WRITE, MAP_SHARED, file_, offset);
        if (place == MAP_FAILED) throw std::system_error(errno, std::generic_category(), "cannot map the file of states");
        chunks_[chunk] = place;
    }

    void unmap(std::size_t chunk) {
        if (chunks_[chunk] != nullptr) munmap(chunks_[chunk], bytes_of(chunk));
        chunks_[chunk] = nullptr;
    }

    int count_, file_, per_chunk_ = 1;
    std::size_t plane_bytes_;
    Buffer memory_;
    std::vector<void*> chunks_;
};

}  // namespace nca
