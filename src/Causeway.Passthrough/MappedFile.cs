using Causeway.Fuse;
using Causeway.Linux;

namespace Causeway.Passthrough;

/// <summary>
/// A host file that is mapped into windows, and the one place where its size is changed meanwhile: whoever changes it holds
/// the <see cref="Gate"/>, and has called <see cref="Grow"/> or <see cref="Shrink"/> before.
/// </summary>
/// <remarks>
/// <para><b>Shrinking.</b> A page behind the end of a file faults for whoever maps it, and the front end dies of that. A guest
/// that truncates a file has let go of its pages; other guests learn of it later. So the mappings end before the
/// file does.</para>
/// <para><b>Growing.</b> A guest that has a part of a file mapped takes for granted that this goes for what the file grows by.
/// QEMU maps only pages that exist, so what is missing is mapped before the guest can learn of the new size; and because
/// it looks at the file's size when it maps and never again, the file is given a size for that moment in which all pages up to
/// the end of the 2 MiB exist, including the partial one at its end. From then on it may grow there at no cost.</para>
/// <code>
///              S                 2 MiB
///   |----------|                   |      file before: S bytes, mapped to S
///   |------------------------------|      truncate(2 MiB): a hole, no blocks
///   |==========|===================|      SHMEM_MAP of the rest
///   |----------|                   |      truncate(S)
///   |-------------|                |      the write that began all this
/// </code>
/// <para>Only files that a guest has been given for mapping, and has itself brought to such a size, are treated so, never
/// empty ones, and only with front ends that need it. On the host the file is for that moment larger than it should be.
/// That, and that nobody else may change its size meanwhile, is part of what "exclusive" means.</para>
/// </remarks>
internal sealed class MappedFile : MappableFile
{
    private const ulong Page = 4096;

    private readonly MappedFiles _owner;
    private readonly Lock _lock = new();
    private readonly Dictionary<IDaxWindow, int> _windows = [];
    private ulong _missingFrom = ulong.MaxValue;
    private ulong _passingSize;

    public MappedFile(MappedFiles owner, ulong device, ulong inode, int descriptor, bool isWritable)
    {
        _owner = owner;
        Identity = (device, inode);
        Descriptor = descriptor;
        IsWritable = isWritable;
    }

    /// <inheritdoc/>
    public override int Descriptor { get; }

    /// <inheritdoc/>
    public override bool IsWritable { get; }

    /// <inheritdoc/>
    public override (ulong Device, ulong Inode) Identity { get; }

    /// <summary>See <see cref="MappedFiles.GateOf"/>.</summary>
    public Lock Gate => _owner.GateOf(Identity.Device, Identity.Inode);

    /// <summary>Guarded by <see cref="MappedFiles"/>.</summary>
    public int References { get; set; }

    /// <inheritdoc/>
    public override void AddUse(IDaxWindow window)
    {
        _owner.AddReference(this);
        lock (_lock)
        {
            _windows[window] = _windows.GetValueOrDefault(window) + 1;
        }
    }

    /// <inheritdoc/>
    public override void EndUse(IDaxWindow window)
    {
        lock (_lock)
        {
            int uses = _windows[window] - 1;
            if (uses == 0)
            {
                _windows.Remove(window);
            }
            else
            {
                _windows[window] = uses;
            }
        }

        _owner.Release(this);
    }

    /// <summary>Gives back a reference.</summary>
    public void Release() => _owner.Release(this);

    /// <summary>
    /// Whether a size that statx(2) told may have been the passing one of <see cref="MapToTheEnd"/>.
    /// </summary>
    public bool MayBePassing(ulong size) => size != 0 && size == Volatile.Read(ref _passingSize);

    /// <summary>Whether a file of this size, or larger, is not mapped completely.</summary>
    public bool IsMissing(ulong end) => end > Volatile.Read(ref _missingFrom);

    /// <summary>Maps a part of the file. With the gate held.</summary>
    /// <param name="window">Where to.</param>
    /// <param name="range">Which part.</param>
    /// <param name="mayResize">Whether a file with a partial last page may be brought to size for that.</param>
    /// <returns>EINVAL when the front end cannot map that file.</returns>
    public Errno Map(IDaxWindow window, in FuseSetupMappingIn range, bool mayResize)
    {
        if (!window.NeedsWholePages)
        {
            return window.Map(this, range, ulong.MaxValue);
        }

        SyscallResult looked = Files.Statx(Descriptor, StatxMask.Basic, out StatxBuffer status);
        if (looked.IsError)
        {
            return looked.Error;
        }

        ulong end = range.FileOffset + range.Length;
        if (!IsWritable || status.Size == 0)
        {
            return Errno.EINVAL;
        }

        if (status.Size >= end)
        {
            return window.Map(this, range, ulong.MaxValue);
        }

        if (status.Size % Page == 0)
        {
            // The guest does not touch more.
            Volatile.Write(ref _missingFrom, Math.Min(_missingFrom, Math.Max(status.Size, range.FileOffset)));
            return window.Map(this, range, status.Size);
        }

        if (!mayResize)
        {
            return Errno.EINVAL;
        }

        FuseSetupMappingIn part = range;
        return MapToTheEnd(status.Size, end, () => window.Map(this, part, ulong.MaxValue));
    }

    /// <summary>Completes the mappings for a file that is about to end later. With the gate held.</summary>
    /// <param name="end">Where it will end.</param>
    /// <param name="size">How large it is now.</param>
    public Errno Grow(ulong end, ulong size)
    {
        if (!IsMissing(end))
        {
            return Errno.Success;
        }

        IDaxWindow[] windows = Windows();
        if (!Array.Exists(windows, window => window.NeedsWholePages))
        {
            return Extend(windows, end, ulong.MaxValue);
        }

        return end == size && size % Page == 0
            ? Extend(windows, end, size)
            : MapToTheEnd(size, RoundUp(end, IDaxWindow.SlotSize), () => Extend(windows, end, ulong.MaxValue));
    }

    /// <summary>Ends the mappings of what a file is about to lose. With the gate held, until it has lost it.</summary>
    /// <param name="end">Where it will end.</param>
    /// <param name="size">How large it is now.</param>
    public Errno Shrink(ulong end, ulong size)
    {
        IDaxWindow[] windows = Windows();
        ulong pageEnd = RoundUp(end, Page);
        Volatile.Write(ref _missingFrom, Math.Min(_missingFrom, pageEnd));
        bool isResized = size < pageEnd && Array.Exists(windows, window => window.NeedsWholePages);
        return isResized ? MapToTheEnd(size, pageEnd, () => EndFrom(windows, pageEnd)) : EndFrom(windows, pageEnd);
    }

    /// <summary>How large the file is. With the gate held.</summary>
    public Result<ulong> Size()
    {
        SyscallResult looked = Files.Statx(Descriptor, StatxMask.Basic, out StatxBuffer status);
        return looked.IsError ? looked.Error : status.Size;
    }

    private static ulong RoundUp(ulong value, ulong unit) => (value + unit - 1) / unit * unit;

    private Errno EndFrom(IDaxWindow[] windows, ulong end)
    {
        bool isDone = true;
        foreach (IDaxWindow window in windows)
        {
            isDone &= window.Shrink(this, end);
        }

        return isDone ? Errno.Success : Errno.EIO;
    }

    private Errno Extend(IDaxWindow[] windows, ulong end, ulong limit)
    {
        ulong missing = ulong.MaxValue;
        bool isDone = true;
        foreach (IDaxWindow window in windows)
        {
            missing = Math.Min(missing, window.Extend(this, end, limit, out bool isComplete));
            isDone &= isComplete;
        }

        if (!isDone)
        {
            return Errno.EIO;
        }

        Volatile.Write(ref _missingFrom, missing);
        return Errno.Success;
    }

    // Gives the file a size in which all pages up to an end exist, maps, and takes the size back.
    private Errno MapToTheEnd(ulong size, ulong end, Func<Errno> map)
    {
        if (size >= end || end > long.MaxValue)
        {
            return size >= end ? map() : Errno.EFBIG;
        }

        Volatile.Write(ref _passingSize, end);
        Errno error = Files.Ftruncate(Descriptor, (long)end).Error;
        if (error != Errno.Success)
        {
            return error;
        }

        error = map();
        Errno restored = Files.Ftruncate(Descriptor, (long)size).Error;
        return error == Errno.Success ? restored : error;
    }

    private IDaxWindow[] Windows()
    {
        lock (_lock)
        {
            return [.. _windows.Keys];
        }
    }
}
