// A few threads that wait for the next piece of work: a step is too short to start threads for.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace nca {

class Team {
   public:
    explicit Team(int threads) {
        try {
            for (int i = 1; i < threads; ++i) workers_.emplace_back([this, i] { serve(i); });
        } catch (const std::system_error&) {
            // The system gives no more threads: those there are do the work, with the same result.
        }
    }
    Team(const Team&) = delete;
    Team& operator=(const Team&) = delete;

    ~Team() {
        {
            std::lock_guard<std::mutex> lock(mutex_);
            stop_ = true;
            generation_.fetch_add(1);
        }
        wake_.notify_all();
        for (auto& worker : workers_) worker.join();
    }

    int size() const { return static_cast<int>(workers_.size()) + 1; }

    // Calls work(0) here and work(1) .. work(size - 1) on the others; returns when all are done. work must not throw.
    void run(const std::function<void(int)>& work) {
        if (!workers_.empty()) {
            {
                std::lock_guard<std::mutex> lock(mutex_);
                work_ = &work;
                busy_.store(static_cast<int>(workers_.size()));
                generation_.fetch_add(1);
            }
            wake_.notify_all();
        }
        work(0);
        if (spin([this] { return busy_.load(std::memory_order_acquire) == 0; })) return;
        std::unique_lock<std::mutex> lock(mutex_);
        done_.wait(lock, [this] { return busy_.load(std::memory_order_acquire) == 0; });
    }

   private:
    // Most waits are shorter than falling asleep and waking; longer ones leave the core to others.
    template <class Condition>
    static bool spin(Condition condition) {
        for (int i = 0; i < 1000; ++i) {
            if (condition()) return true;
            relax();
        }
        return false;
    }

    static void relax() {
#if defined(__x86_64__)
        __builtin_ia32_pause();
#elif defined(__aarch64__)
        asm volatile("yield");
#endif
    }

    void serve(int index) {
        for (unsigned seen = 0;;) {
            if (!spin([&] { return generation_.load(std::memory_order_acquire) != seen; })) {
                std::unique_lock<std::mutex> lock(mutex_);
                wake_.wait(lock, [&] { return generation_.load(std::memory_order_acquire) != seen; });
            }
            ++seen;
            {
                std::lock_guard<std::mutex> lock(mutex_);
                if (stop_) return;
            }
            (*work_)(index);
            std::lock_guard<std::mutex> lock(mutex_);
            if (busy_.fetch_sub(1, std::memory_order_acq_rel) == 1) done_.notify_one();
        }
    }

    std::mutex mutex_;
    std::condition_variable wake_, done_;
    std::atomic<unsigned> generation_{0};
    std::atomic<int> busy_{0};
    const std::function<void(int)>* work_ = nullptr;
    bool stop_ = false;
    std::vector<std::thread> workers_;
};

}  // namespace nca
