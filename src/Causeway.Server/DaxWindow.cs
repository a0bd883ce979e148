using System.Runtime.InteropServices;
using Causeway.Fuse;
using Causeway.Linux;
using Causeway.VhostUser.Backend;
using Causeway.VhostUser.Messages;
using Microsoft.Extensions.Logging;
using Microsoft.Win32.SafeHandles;

namespace Causeway.Server;

/// <summary>
/// The DAX window over vhost-user: each slot is a mapping of the front end's, made with SHMEM_MAP, or two where the second
/// half came when the file grew.
/// </summary>
/// <remarks>
/// <code>
/// slot          |&lt;----------------- 2 MiB -----------------&gt;|
/// front end has |   First    |   Second   |  nothing         |
/// file          |------- whole pages of it -----|..end
/// </code>
/// <para>Only while the device runs may the front end be asked: QEMU 11.1 crashes when it hears of a mapping before the guest's
/// driver has started the device or after it has stopped it (vhost-user.md 18.6). <see cref="Open"/> and <see cref="Close"/>
/// say when, and <see cref="BackendChannel.WaitsForReader"/> sees to what is under way then. They and <see cref="Recognizes"/> are
/// called by the control thread and wait for nobody who waits for the front end, because it may itself be waiting for the control
/// thread.</para>
/// <para>When a device is reset, QEMU drops its mappings, while others keep them and nobody tells. So what was mapped before a
/// reset is kept as "stale", until something else is put in its place. A front end that maps any page is asked to take it
/// away first; QEMU is asked to map, and to take away only when it refuses, so that each sees no request that it did not
/// expect.</para>
/// </remarks>
internal sealed class DaxWindow : IDaxWindow
{
    // One at a time goes to the front end: it is held while waiting. _slots is written with both locks held.
    private readonly Lock _asking = new();
    private readonly Lock _table = new();
    private readonly Slot[] _slots;
    private readonly ILogger _logger;
    private volatile BackendChannel? _channel;
    private volatile bool _wasStopped;
    private bool _hasLeftovers;
    private FrontEndKind _kind;

    /// <summary>Makes an empty window that nobody has yet.</summary>
    /// <param name="size">Its size in bytes, a multiple of <see cref="IDaxWindow.SlotSize"/>.</param>
    /// <param name="logger">Where it is said what the front end can do.</param>
    public DaxWindow(ulong size, ILogger logger)
    {
        Size = size;
        _slots = new Slot[size / IDaxWindow.SlotSize];
        _logger = logger;
    }

    private enum FrontEndKind
    {
        Unknown,
        AnyPages,
        WholePages,
    }

    /// <inheritdoc/>
    public ulong Size { get; }

    /// <inheritdoc/>
    public bool NeedsWholePages => _kind != FrontEndKind.AnyPages;

    /// <summary>The front end can be asked on this channel while a ring runs; null when it cannot any more.</summary>
    /// <param name="channel">The channel.</param>
    /// <param name="isRunning">Whether a ring runs already.</param>
    public void Connect(BackendChannel? channel, bool isRunning)
    {
        if (channel is not null)
        {
            channel.WaitsForReader = NeedsWholePages;
            if (!isRunning)
            {
                channel.Interrupt();
            }
        }

        _channel = channel;
    }

    /// <summary>A ring starts: the front end may be asked.</summary>
    public void Open() => _channel?.Resume();

    /// <summary>A ring is to stop: nobody begins to ask, and who waits for an answer gives up.</summary>
    /// <param name="isLast">Whether it is the last one that runs.</param>
    public void Close(bool isLast)
    {
        _wasStopped |= isLast;
        _channel?.Interrupt();
    }

    /// <summary>The front end has gone; the next one has nothing mapped.</summary>
    public void Disconnect()
    {
        lock (_asking)
        {
            _kind = FrontEndKind.Unknown;
            for (int i = 0; i < _slots.Length; i++)
            {
                Release(i);
                _slots[i] = default;
            }
        }
    }

    /// <summary>
    /// Whether a region of guest memory is one of our own mappings, which QEMU shows to all its back ends as if they were
    /// memory.
    /// </summary>
    /// <param name="file">The file that came with it.</param>
    /// <param name="offset">Where it starts in the file.</param>
    public bool Recognizes(SafeFileHandle file, ulong offset)
    {
        if (Files.Statx((int)file.DangerousGetHandle(), StatxMask.Basic, out StatxBuffer status).IsError)
        {
            return false;
        }

        ulong start = offset / IDaxWindow.SlotSize * IDaxWindow.SlotSize;
        (ulong, ulong) identity = (((ulong)status.DeviceMajor << 32) | status.DeviceMinor, status.Inode);
        lock (_table)
        {
            return Array.Exists(_slots, slot =>
                (slot.File is not null || slot.StaleFirst != 0) && slot.FileOffset == start && slot.Identity == identity);
        }
    }

    /// <inheritdoc/>
    public bool TryBegin()
    {
        lock (_asking)
        {
            if (_wasStopped)
            {
                _wasStopped = false;
                Forget();
            }

            UnmapAll();
            if (_channel is null or { IsClosed: true })
            {
                return false;
            }

            if (_kind == FrontEndKind.Unknown)
            {
                Probe();
            }

            return _kind != FrontEndKind.Unknown;
        }
    }

    /// <inheritdoc/>
    public void End()
    {
        lock (_asking)
        {
            UnmapAll();
        }
    }

    /// <inheritdoc/>
    public Errno Map(MappableFile file, in FuseSetupMappingIn range, ulong limit)
    {
        lock (_asking)
        {
            TakeLeftovers();
            bool isWritable = (range.Flags & FuseMappingFlags.Write) != 0;
            for (ulong done = 0; done < range.Length; done += IDaxWindow.SlotSize)
            {
                int index = (int)((range.WindowOffset + done) / IDaxWindow.SlotSize);
                Errno error = MapSlot(index, file, range.FileOffset + done, isWritable, limit);
                if (error != Errno.Success)
                {
                    return error;
                }
            }

            return Errno.Success;
        }
    }

    /// <inheritdoc/>
    public Errno Unmap(ulong offset, ulong length)
    {
        lock (_asking)
        {
            TakeLeftovers();
            for (ulong done = 0; done < length; done += IDaxWindow.SlotSize)
            {
                Empty((int)((offset + done) / IDaxWindow.SlotSize));
            }

            return Errno.Success;
        }
    }

    /// <inheritdoc/>
    public ulong Extend(MappableFile file, ulong end, ulong limit, out bool isComplete)
    {
        ulong missing = ulong.MaxValue;
        isComplete = true;
        lock (_asking)
        {
            for (int i = 0; i < _slots.Length; i++)
            {
                if (_slots[i].File != file || _slots[i].Mapped == IDaxWindow.SlotSize)
                {
                    continue;
                }

                ulong offset = _slots[i].FileOffset;
                if (offset < end && offset < limit)
                {
                    isComplete &= ExtendSlot(i, (uint)Math.Min(limit - offset, IDaxWindow.SlotSize));
                }

                if (_slots[i].Mapped < IDaxWindow.SlotSize)
                {
                    missing = Math.Min(missing, offset + _slots[i].Mapped);
                }
            }
        }

        return missing;
    }

    /// <inheritdoc/>
    public bool Shrink(MappableFile file, ulong end)
    {
        bool isDone = true;
        lock (_asking)
        {
            for (int i = 0; i < _slots.Length; i++)
            {
                Slot slot = _slots[i];
                if (slot.File == file && slot.FileOffset + slot.Mapped > end)
                {
                    uint rest = end <= slot.FileOffset ? 0 : (uint)(end - slot.FileOffset);
                    isDone &= Take(i) == Errno.Success && (rest == 0 || Add(i, rest) == Errno.Success);
                }
            }
        }

        return isDone;
    }

    // What follows is called with _asking held.

    private Errno MapSlot(int index, MappableFile file, ulong fileOffset, bool isWritable, ulong limit)
    {
        ref Slot slot = ref _slots[index];
        uint length = fileOffset >= limit ? 0 : (uint)Math.Min(limit - fileOffset, IDaxWindow.SlotSize);
        if (slot.File == file && slot.FileOffset == fileOffset && slot.Mapped >= length
            && (slot.IsWritable || !isWritable))
        {
            return Errno.Success;
        }

        if (slot.File is not null)
        {
            Errno error = Empty(index);
            if (error != Errno.Success)
            {
                return error;
            }
        }

        file.AddUse(this);
        lock (_table)
        {
            slot.File = file;
            slot.Identity = file.Identity;
            slot.FileOffset = fileOffset;

            // Once and for all where it can be: then the guest's first write costs nothing more.
            slot.IsWritable = file.IsWritable && (isWritable || NeedsWholePages);
        }

        Errno result = length == 0 ? Errno.Success : Add(index, length);
        if (result != Errno.Success)
        {
            Release(index);
        }

        return result;
    }

    private bool ExtendSlot(int index, uint length)
    {
        if (_slots[index].Mapped >= length)
        {
            return true;
        }

        // A third piece has no place in a slot: it begins anew.
        return (_slots[index].Second == 0 || Take(index) == Errno.Success)
            && Add(index, length - _slots[index].Mapped) == Errno.Success;
    }

    // Maps what follows in a slot. The slot names the file before the front end hears of it: see Recognizes.
    private Errno Add(int index, uint length)
    {
        ref Slot slot = ref _slots[index];
        if (_kind == FrontEndKind.AnyPages)
        {
            TakeStale(index);
        }

        SharedMemoryMapping mapping = new(
            Region: 0,
            slot.FileOffset + slot.Mapped,
            ((ulong)index * IDaxWindow.SlotSize) + slot.Mapped,
            length,
            slot.IsWritable ? SharedMemoryFlags.Writable : SharedMemoryFlags.None);
        ChannelResult result = Ask(mapping, slot.File!.Descriptor);
        if (result == ChannelResult.Refused && slot.StaleFirst != 0)
        {
            TakeStale(index);
            result = Ask(mapping, slot.File.Descriptor);
        }

        switch (result)
        {
            case ChannelResult.Done when slot.First == 0:
                slot.First = length;
                slot.StaleFirst = 0;
                slot.StaleSecond = 0;
                return Errno.Success;
            case ChannelResult.Done:
                slot.Second = length;
                return Errno.Success;
            case ChannelResult.Interrupted or ChannelResult.Unanswered:
                if (result == ChannelResult.Unanswered)
                {
                    // Perhaps it happens yet.
                    (slot.First, slot.Second) = slot.First == 0 ? (length, 0u) : (slot.First, length);
                    MakeStale(index);
                }

                // Linux guests try a fault again, and do not end a program that had touched the page.
                return Errno.EAGAIN;
            case ChannelResult.Refused:
                return Errno.ENOMEM;
            default:
                return Errno.EIO;
        }
    }

    // Ends what is mapped in a slot, which stays the file's.
    private Errno Take(int index)
    {
        ref Slot slot = ref _slots[index];
        ulong start = (ulong)index * IDaxWindow.SlotSize;
        Errno error = slot.Second == 0 ? Errno.Success : Take(start + slot.First, slot.Second);
        if (error == Errno.Success)
        {
            slot.Second = 0;
            error = slot.First == 0 ? Errno.Success : Take(start, slot.First);
        }

        if (error == Errno.Success)
        {
            slot.First = 0;
        }

        return error;
    }

    private Errno Take(ulong offset, uint length)
    {
        ChannelResult result = Ask(new SharedMemoryMapping(0, 0, offset, length, SharedMemoryFlags.None), descriptor: -1);

        // A refusal means that there is no such mapping, which is what was wanted.
        return result is ChannelResult.Done or ChannelResult.Refused ? Errno.Success : Errno.EIO;
    }

    private void TakeStale(int index)
    {
        ref Slot slot = ref _slots[index];
        ulong start = (ulong)index * IDaxWindow.SlotSize;
        if (slot.StaleSecond != 0 && Take(start + slot.StaleFirst, slot.StaleSecond) == Errno.Success)
        {
            slot.StaleSecond = 0;
        }

        if (slot.StaleFirst != 0 && slot.StaleSecond == 0 && Take(start, slot.StaleFirst) == Errno.Success)
        {
            slot.StaleFirst = 0;
        }
    }

    // What was to be unmapped when the device stopped, and is mapped for nobody since. QEMU counts it: with more than eight regions
    // it does not start the device again after the next pause.
    private void TakeLeftovers()
    {
        if (!_hasLeftovers)
        {
            return;
        }

        _hasLeftovers = false;
        for (int i = 0; i < _slots.Length; i++)
        {
            if (_slots[i].File is null)
            {
                TakeStale(i);
                _hasLeftovers |= _slots[i].StaleFirst != 0;
            }
        }
    }

    // Ends what is mapped in a slot. What the front end cannot be asked to end becomes stale.
    private Errno Empty(int index)
    {
        if (_slots[index].File is null)
        {
            return Errno.Success;
        }

        Errno error = Take(index);
        if (error != Errno.Success)
        {
            MakeStale(index);
        }

        Release(index);
        return error;
    }

    private void UnmapAll()
    {
        for (int i = 0; i < _slots.Length; i++)
        {
            _ = Empty(i);
        }
    }

    private void Forget()
    {
        for (int i = 0; i < _slots.Length; i++)
        {
            if (_slots[i].File is not null)
            {
                MakeStale(i);
                Release(i);
            }
        }

        // After a reset nobody knows.
        _hasLeftovers = false;
    }

    private void MakeStale(int index)
    {
        ref Slot slot = ref _slots[index];
        if (slot.First != 0)
        {
            (slot.StaleFirst, slot.StaleSecond) = (slot.First, slot.Second);
            (slot.First, slot.Second) = (0, 0);
            _hasLeftovers = true;
        }
    }

    private void Release(int index)
    {
        ref Slot slot = ref _slots[index];
        MappableFile? file = slot.File;
        lock (_table)
        {
            slot.File = null;
            slot.First = 0;
            slot.Second = 0;
        }

        file?.EndUse(this);
    }

    private ChannelResult Ask(in SharedMemoryMapping mapping, int descriptor)
    {
        if (_channel is not { } channel)
        {
            return ChannelResult.Gone;
        }

        return descriptor < 0 ? channel.Unmap(mapping) : channel.Map(mapping, descriptor);
    }

    // Two pages of a file that has one: QEMU refuses without further ado, and everybody else maps them. No front end sees
    // it as a mistake, and nobody touches the pages.
    private void Probe()
    {
        ulong page = (ulong)Environment.SystemPageSize;
        try
        {
            using SafeFileHandle file = Memory.CreateMemoryFile("causeway-dax-probe\0"u8, (long)page, FileSeals.Grow);
            SharedMemoryMapping mapping = new(0, 0, 0, 2 * page, SharedMemoryFlags.Writable);
            TakeStale(0);
            ChannelResult result = Ask(mapping, (int)file.DangerousGetHandle());
            _kind = result switch
            {
                ChannelResult.Done when Ask(mapping, descriptor: -1) == ChannelResult.Done => FrontEndKind.AnyPages,
                ChannelResult.Refused => FrontEndKind.WholePages,
                _ => FrontEndKind.Unknown,
            };

            // One that is better at this than QEMU is trusted to be better at the rest, too.
            _channel?.WaitsForReader = NeedsWholePages;
            Log.WindowProbed(_logger, Size >> 20, _kind == FrontEndKind.AnyPages ? "any page" : "whole pages only");
        }
        catch (ErrnoException)
        {
            // No descriptor: no DAX this time.
        }
    }

    [StructLayout(LayoutKind.Auto)]
    private struct Slot
    {
        public MappableFile? File;

        // Of the file; and of the last one, of which the front end may still have what is stale.
        public (ulong Device, ulong Inode) Identity;
        public ulong FileOffset;
        public uint First;
        public uint Second;
        public uint StaleFirst;
        public uint StaleSecond;
        public bool IsWritable;

        public readonly uint Mapped => First + Second;
    }
}
