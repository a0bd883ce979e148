using System.Diagnostics;
using System.Runtime.CompilerServices;
using Causeway.Linux;

namespace Causeway.Passthrough;

/// <summary>
/// An array in native memory that grows in place: addresses for the most it may hold are reserved at once, memory is put
/// behind them as items come into use. Items never move, so that readers need no lock.
/// </summary>
/// <typeparam name="T">The type of an item.</typeparam>
internal sealed unsafe class NativeSlab<T> : IDisposable
    where T : unmanaged
{
    // Arbitrary: one system call per ten thousand nodes.
    private const nuint CommitStep = 1 << 20;

    private readonly nuint _reserved;
    private readonly uint _capacity;
    private T* _items;
    private nuint _committed;
    private uint _count;

    /// <summary>Reserves addresses.</summary>
    /// <param name="capacity">The most items it may ever hold.</param>
    public NativeSlab(uint capacity)
    {
        _capacity = capacity;
        _reserved = (((nuint)capacity * (nuint)sizeof(T)) + CommitStep - 1) / CommitStep * CommitStep;
        _items = (T*)AddressSpace.Reserve(_reserved);
    }

    /// <summary>How many items are in use or were: the indices below are readable.</summary>
    public uint Count => Volatile.Read(ref _count);

    /// <summary>Bytes of memory behind the addresses.</summary>
    public long CommittedBytes => (long)_committed;

    /// <summary>An item. The index is below <see cref="Count"/>.</summary>
    /// <param name="index">The index.</param>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public T* At(uint index)
    {
        Debug.Assert(index < Count, "only items in use are looked at");
        return _items + index;
    }

    /// <summary>The index of an item.</summary>
    /// <param name="item">The item.</param>
    public uint IndexOf(T* item) => (uint)(item - _items);

    /// <summary>Takes the next item that was never used; it is all zeros. Not thread-safe.</summary>
    /// <param name="index">Its index.</param>
    /// <returns>False when the slab or the memory is full.</returns>
    public bool TryExtend(out uint index)
    {
        index = _count;
        if (index >= _capacity)
        {
            return false;
        }

        if (((nuint)index + 1) * (nuint)sizeof(T) > _committed)
        {
            if (AddressSpace.Commit((byte*)_items + _committed, CommitStep).IsError)
            {
                return false;
            }

            _committed += CommitStep;
        }

        // Pairs with the read in Count: whoever sees the index sees the memory.
        Volatile.Write(ref _count, index + 1);
        return true;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        if (_items != null)
        {
            _ = AddressSpace.Release((byte*)_items, _reserved);
            _items = null;
        }
    }
}
