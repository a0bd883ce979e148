using Causeway.Fuse;

namespace Causeway.Driver.Bridge;

/// <summary>
/// Files and directories that the kernel has open for reading and the device has not, because all of their contents that the kernel
/// keeps is still true: the device opens them when something is to be read after all.
/// </summary>
internal sealed class LazyHandles
{
    // Told from the device's own by the highest bit, which no device of ours sets.
    private const ulong Mark = 1UL << 63;

    private readonly Lock _gate = new();
    private readonly Dictionary<ulong, LazyHandle> _handles = [];
    private ulong _next;

    /// <summary>Whether a handle is one of these.</summary>
    public static bool IsLazy(ulong handle) => (handle & Mark) != 0;

    /// <summary>How many there are.</summary>
    public int Count
    {
        get
        {
            lock (_gate)
            {
                return _handles.Count;
            }
        }
    }

    /// <summary>Adds one.</summary>
    /// <param name="flags">The flags it is to be opened with.</param>
    /// <param name="isDirectory">Whether it is a directory.</param>
    /// <returns>Its number.</returns>
    public ulong Add(uint flags, bool isDirectory)
    {
        lock (_gate)
        {
            ulong number = Mark | _next++;
            _handles.Add(number, new LazyHandle(flags, isDirectory));
            return number;
        }
    }

    /// <summary>Finds one.</summary>
    public LazyHandle? Find(ulong number)
    {
        lock (_gate)
        {
            return _handles.GetValueOrDefault(number);
        }
    }

    /// <summary>The kernel has closed one.</summary>
    /// <returns>What the device has open for it.</returns>
    public LazyHandle? Remove(ulong number)
    {
        lock (_gate)
        {
            return _handles.Remove(number, out LazyHandle? handle) ? handle : null;
        }
    }
}

/// <summary>An open file of the kernel's that the device may not have open.</summary>
/// <param name="flags">The flags it is to be opened with.</param>
/// <param name="isDirectory">Whether it is a directory.</param>
internal sealed class LazyHandle(uint flags, bool isDirectory)
{
    private readonly Lock _gate = new();
    private readonly List<ulong> _opened = [];

    /// <summary>The flags it is to be opened with.</summary>
    public uint Flags => flags;

    /// <summary>Whether it is a directory.</summary>
    public bool IsDirectory => isDirectory;

    /// <summary>The device's handle, if it has one.</summary>
    public ulong? Opened
    {
        get
        {
            lock (_gate)
            {
                return _opened.Count == 0 ? null : _opened[0];
            }
        }
    }

    /// <summary>The device has opened it. Two requests may have had it do so: the first handle counts.</summary>
    /// <returns>The one to use.</returns>
    public ulong Add(ulong opened)
    {
        lock (_gate)
        {
            _opened.Add(opened);
            return _opened[0];
        }
    }

    /// <summary>Takes one of the device's handles out, to close it.</summary>
    public bool TryTake(out ulong opened)
    {
        lock (_gate)
        {
            opened = _opened.Count == 0 ? 0 : _opened[^1];
            if (_opened.Count == 0)
            {
                return false;
            }

            _opened.RemoveAt(_opened.Count - 1);
            return true;
        }
    }
}
