// Arrays that know their size, and who touched which element last.
//
// Every element that may be written, in shared or in global memory, has two numbers: the last write and the
// reads since. A number holds the epoch (which barrier came before), the warp's epoch, and the thread; so
// every access can tell whether something orders it after the one before. If nothing does, and one of the two
// writes, the result depends on which thread came first, and the kernel is wrong even where it happens to
// give the right answer. The idea is that of Flanagan and Freund's FastTrack (PLDI 2009).

#ifndef MINIALEX_MEMORY_HPP
#define MINIALEX_MEMORY_HPP

#include "block.hpp"

namespace minialex {

struct Array {
    const char* name;
    char* data;
    index_t size;
    uint64_t *writes, *reads;  // Null for what is only read.
    const int* extents;        // Of a shared array; null for a parameter.
    int axes;
};

static Array null_array = {"a pointer", nullptr, 0, nullptr, nullptr, nullptr, 0};

inline Text place(const Array& array, index_t at) {
    Text text;
    int n = snprintf(text.text, sizeof text.text, "%s%s", array.extents ? "shared " : "", array.name);
    if (!array.extents) {
        snprintf(text.text + n, sizeof text.text - n, "[%lld]", at);
        return text;
    }
    for (int axis = 0; axis < array.axes; ++axis) {
        index_t below = 1;
        for (int i = axis + 1; i < array.axes; ++i) below *= array.extents[i];
        const index_t i = axis ? at / below % array.extents[axis] : at / below;
        n += snprintf(text.text + n, sizeof text.text - n, "[%lld]", i);
    }
    return text;
}

[[noreturn]] MINIALEX_COLD static void outside(const Array& array, index_t at, void* address) {
    if (!array.data && array.size == 0)
        fail(current, address, "%s is a null pointer (None was passed), and element %lld is asked for",
             array.name, at);
    if (array.size == 0)
        fail(current, address, "%s is out of range: %s has no elements", place(array, at).text, array.name);
    fail(current, address, "%s is out of range: %s has %lld element(s), 0 .. %lld", place(array, at).text,
         array.name, array.size, array.size - 1);
}

[[noreturn]] MINIALEX_COLD static void outside_axis(const Array& array, int axis, index_t i, int extent) {
    fail(current, __builtin_return_address(0), "shared %s: index %lld of axis %d is out of range, 0 .. %d",
         array.name, i, axis, extent - 1);
}

// What is kept of an access: epoch (32 bits), warp epoch (19), thread (10), and of reads whether other lanes,
// other warps or other blocks have read as well.
const uint64_t MANY_LANES = 1, MANY_WARPS = 2, MANY_BLOCKS = 4, WARP_EPOCH = (1 << 19) - 1;
const int THREAD_SHIFT = 3, WARP_EPOCH_SHIFT = 13;

inline uint64_t signature() {
    return (uint64_t)epoch << 32 | (warps[current / WARP].epoch & WARP_EPOCH) << WARP_EPOCH_SHIFT |
           (uint64_t)current << THREAD_SHIFT;
}
inline uint32_t epoch_of(uint64_t access) { return (uint32_t)(access >> 32); }
inline uint64_t warp_epoch_of(uint64_t access) { return access >> WARP_EPOCH_SHIFT & WARP_EPOCH; }
inline int thread_of(uint64_t access) { return (int)(access >> THREAD_SHIFT & (MAX_THREADS - 1)); }

// Whether nothing orders the access `me` after the access `before`, made by another thread.
inline bool races(uint64_t before, uint64_t me, bool shared) {
    if (before == me || before == 0) return false;
    // Nothing orders blocks.
    if (before & MANY_BLOCKS || epoch_of(before) < block_epoch) return !shared;
    if (epoch_of(before) < epoch) return false;
    if (before & MANY_WARPS || thread_of(before) / WARP != thread_of(me) / WARP) return true;
    // A __syncwarp() or a shuffle lies between.
    if (warp_epoch_of(before) != warp_epoch_of(me)) return false;
    return before & MANY_LANES || thread_of(before) != thread_of(me);
}

[[noreturn]] MINIALEX_COLD static void report_race(
    const Array& array, index_t at, uint64_t before, const char* did, const char* does, void* address) {
    if (before & MANY_BLOCKS || epoch_of(before) < block_epoch)
        fail(current, address,
             "race: %s %s, which a thread of another block %s; nothing orders two blocks of one launch", does,
             place(array, at).text, did);
    int other = thread_of(before);
    if (other == current) other = -1;  // One of several readers, and the first was this thread.
    const uint3 index = threads[other < 0 ? 0 : other].index;
    char who[64];
    if (other < 0)
        snprintf(who, sizeof who, "another thread");
    else
        snprintf(who, sizeof who, "thread (%u, %u, %u)", index.x, index.y, index.z);
    fail(current, address, "race: %s %s, which %s %s with no barrier in between", does,
         place(array, at).text, who, did);
}

__attribute__((noinline)) static void note_write(const Array& array, index_t at) {
    void* address = __builtin_return_address(0);
    burn_fuel();
    if ((uint64_t)at >= (uint64_t)array.size) outside(array, at, address);
    const uint64_t me = signature();
    const uint64_t write = array.writes[at], read = array.reads[at];
    if (races(write, me, array.extents)) report_race(array, at, write, "wrote", "writes", address);
    if (races(read, me, array.extents)) report_race(array, at, read, "read", "writes", address);
    array.writes[at] = me;
}

// What is kept of all reads so far, of which `me` is the last: enough to tell whether a write races with any.
inline uint64_t joined(uint64_t before, uint64_t me, bool shared) {
    if (before == 0) return me;
    if (epoch_of(before) < block_epoch) return shared ? me : me | MANY_BLOCKS;
    const uint64_t blocks = before & MANY_BLOCKS;
    if (epoch_of(before) < epoch) return me | blocks;
    if (thread_of(before) / WARP != thread_of(me) / WARP) return before | MANY_WARPS;
    if (warp_epoch_of(before) != warp_epoch_of(me)) return me | blocks | (before & MANY_WARPS);
    return thread_of(before) == thread_of(me) ? before : before | MANY_LANES;
}

__attribute__((noinline)) static void note_read(const Array& array, index_t at) {
    void* address = __builtin_return_address(0);
    burn_fuel();
    if ((uint64_t)at >= (uint64_t)array.size) outside(array, at, address);
    if (!array.writes) return;
    const uint64_t me = signature(), write = array.writes[at], read = array.reads[at];
    if (array.extents && epoch_of(write) < block_epoch)
        fail(current, address, "%s is read before any thread of the block wrote it", place(array, at).text);
    if (races(write, me, array.extents)) report_race(array, at, write, "wrote", "reads", address);
    array.reads[at] = joined(read, me, array.extents);
}

template <class T>
class Element;

// The right side of `x[i] += value`: a number, or another element.
template <class U>
MINIALEX_INLINE U number(const U& value) { return value; }
template <class U>
MINIALEX_INLINE U number(const Element<U>& value) { return value.get(); }

// What x[i] gives of an array that may be written. It is used at once or not at all: `auto v = x[i]` would be
// the place and not its value, so nothing can be done with it then.
template <class T>
class Element {
    const Array& array;
    const index_t at;

    T& place() const { return ((T*)array.data)[at]; }

  public:
    MINIALEX_INLINE Element(const Array& array, index_t at) : array(array), at(at) {}
    Element(const Element&) = delete;

    MINIALEX_INLINE T get() const {
        note_read(array, at);
        return place();
    }
    MINIALEX_INLINE T set(T value) const {
        note_write(array, at);
        return place() = value;
    }
    MINIALEX_INLINE operator T() && { return get(); }
    MINIALEX_INLINE T operator=(T value) && { return set(value); }
    MINIALEX_INLINE T operator=(Element&& other) && { return set(other.get()); }
#define MINIALEX_CHANGE(OP) \
    template <class U>      \
    MINIALEX_INLINE T operator OP##=(const U& value) && { return set((T)(get() OP number(value))); }
    MINIALEX_CHANGE(+)
    MINIALEX_CHANGE(-)
    MINIALEX_CHANGE(*)
    MINIALEX_CHANGE(/)
    MINIALEX_CHANGE(%)
    MINIALEX_CHANGE(|)
    MINIALEX_CHANGE(&)
    MINIALEX_CHANGE(^)
#undef MINIALEX_CHANGE
    MINIALEX_INLINE T operator++() && { return set(get() + 1); }
    MINIALEX_INLINE T operator--() && { return set(get() - 1); }
    MINIALEX_INLINE T operator++(int) && { return set(get() + 1) - 1; }
    MINIALEX_INLINE T operator--(int) && { return set(get() - 1) + 1; }
};

// A pointer to an array and to an element in it: kernels add to it and index it as if it were a plain one.
template <class T>
class InPointer {
  protected:
    const Array* array;
    index_t offset;

  public:
    MINIALEX_INLINE InPointer(decltype(nullptr) = nullptr) : array(&null_array), offset(0) {}
    MINIALEX_INLINE InPointer(const Array* array, index_t offset) : array(array), offset(offset) {}

    MINIALEX_INLINE T operator[](index_t i) const {
        const index_t at = offset + i;
        if (array->writes) {
            note_read(*array, at);
        } else {
            burn_fuel();
            if (__builtin_expect((uint64_t)at >= (uint64_t)array->size, 0)) beyond(at);
        }
        return ((const T*)array->data)[at];
    }
    MINIALEX_INLINE T operator*() const { return (*this)[0]; }
    MINIALEX_INLINE InPointer operator+(index_t n) const { return {array, offset + n}; }
    MINIALEX_INLINE InPointer operator-(index_t n) const { return {array, offset - n}; }
    MINIALEX_INLINE InPointer& operator+=(index_t n) { return offset += n, *this; }
    MINIALEX_INLINE InPointer& operator-=(index_t n) { return offset -= n, *this; }
    MINIALEX_INLINE explicit operator bool() const { return array->data; }
    MINIALEX_INLINE bool operator==(decltype(nullptr)) const { return !array->data; }
    MINIALEX_INLINE bool operator!=(decltype(nullptr)) const { return array->data; }

    // Whether element i may be the first of several that are moved 16 bytes at a time.
    MINIALEX_INLINE void require_aligned(index_t i) const {
        if ((uint64_t)(array->data + (offset + i) * sizeof(T)) % 16) misaligned(i);
    }

  private:
    [[noreturn]] MINIALEX_COLD void beyond(index_t at) const {
        outside(*array, at, __builtin_return_address(0));
    }
    [[noreturn]] MINIALEX_COLD void misaligned(index_t i) const {
        fail(current, __builtin_return_address(0),
             "%s is misaligned: what is moved 16 bytes at a time must lie on a multiple of 16",
             minialex::place(*array, offset + i).text);
    }
};

template <class T>
class OutPointer : public InPointer<T> {
  public:
    using InPointer<T>::InPointer;
    MINIALEX_INLINE Element<T> operator[](index_t i) const { return {*this->array, this->offset + i}; }
    MINIALEX_INLINE Element<T> operator*() const { return {*this->array, this->offset}; }
    MINIALEX_INLINE OutPointer operator+(index_t n) const { return {this->array, this->offset + n}; }
    MINIALEX_INLINE OutPointer operator-(index_t n) const { return {this->array, this->offset - n}; }
    MINIALEX_INLINE OutPointer& operator+=(index_t n) { return this->offset += n, *this; }
    MINIALEX_INLINE OutPointer& operator-=(index_t n) { return this->offset -= n, *this; }
};

// A view of a shared array or of a row of one; the last axis gives elements.
template <class T, int N, int... Below>
class SharedView {
    const Array* array;
    index_t offset;

  public:
    MINIALEX_INLINE SharedView(const Array* array, index_t offset) : array(array), offset(offset) {}
    MINIALEX_INLINE SharedView<T, Below...> operator[](index_t i) const {
        if ((uint64_t)i >= (uint64_t)N) outside_axis(*array, array->axes - 1 - (int)sizeof...(Below), i, N);
        return {array, offset + i * (Below * ...)};
    }
};

template <class T, int N>
class SharedView<T, N> : public OutPointer<T> {
  public:
    using OutPointer<T>::OutPointer;
    MINIALEX_INLINE Element<T> operator[](index_t i) const {
        const Array& all = *this->array;
        if ((uint64_t)i >= (uint64_t)N && all.axes > 1) outside_axis(all, all.axes - 1, i, N);
        return {all, this->offset + i};
    }
};

// All that were met so far, for the day on which the epochs begin anew.
const int MAX_SHARED_ARRAYS = 1024;
static const Array* shared_arrays[MAX_SHARED_ARRAYS];
static int n_shared_arrays;

// Epochs have 32 bits. After half of them, a launch begins with none passed and no shared memory touched.
#ifndef MINIALEX_LAST_EPOCH
#define MINIALEX_LAST_EPOCH (1u << 31)
#endif
inline void renew_epochs() {
    if (epoch < MINIALEX_LAST_EPOCH) return;
    epoch = block_epoch = 1;
    for (int i = 0; i < n_shared_arrays; ++i) {
        memset(shared_arrays[i]->writes, 0, shared_arrays[i]->size * sizeof(uint64_t));
        memset(shared_arrays[i]->reads, 0, shared_arrays[i]->size * sizeof(uint64_t));
    }
}

// The memory behind one `__shared__` declaration, for all blocks in turn.
template <class T, int... Extents>
struct SharedStorage {
    static constexpr index_t SIZE = (1 * ... * (index_t)Extents);
    static constexpr int EXTENTS[sizeof...(Extents) + 1] = {Extents..., 1};
    alignas(16) char data[SIZE * sizeof(T)];
    uint64_t writes[SIZE], reads[SIZE];
    Array array;

    const Array* named(const char* name) {
        if (!array.name) {
            array = {name, data, SIZE, writes, reads, EXTENTS, (int)sizeof...(Extents)};
            if (n_shared_arrays < MAX_SHARED_ARRAYS) shared_arrays[n_shared_arrays++] = &array;
        }
        return &array;
    }
};

template <class T, int... Extents>
class Shared : public SharedView<T, Extents...> {
  public:
    MINIALEX_INLINE Shared(SharedStorage<T, Extents...>& storage, const char* name)
        : SharedView<T, Extents...>(storage.named(name), 0) {}
};

template <class T>
class Shared<T> {
    const Array& array;

  public:
    MINIALEX_INLINE Shared(SharedStorage<T>& storage, const char* name) : array(*storage.named(name)) {}
    Shared(const Shared&) = delete;
    MINIALEX_INLINE operator T() const { return Element<T>(array, 0).get(); }
    MINIALEX_INLINE T operator=(T value) { return Element<T>(array, 0).set(value); }
    MINIALEX_INLINE T operator=(const Shared& other) { return *this = (T)other; }
    template <class U>
    MINIALEX_INLINE T operator+=(const U& value) { return *this = (T)*this + number(value); }
    template <class U>
    MINIALEX_INLINE T operator-=(const U& value) { return *this = (T)*this - number(value); }
    template <class U>
    MINIALEX_INLINE T operator*=(const U& value) { return *this = (T)*this * number(value); }
};

}  // namespace minialex

#endif
