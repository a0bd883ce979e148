using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Causeway.Linux;
using Microsoft.Win32.SafeHandles;

namespace Causeway.Passthrough;

/// <summary>How changes on the host are noticed.</summary>
public enum HostWatching
{
    /// <summary>Not at all.</summary>
    Off,

    /// <summary>By fanotify(7) where privileges and file systems allow, else by inotify(7).</summary>
    Auto,

    /// <summary>By fanotify(7) or not at all.</summary>
    Fanotify,

    /// <summary>By inotify(7): a watch for every directory the guest knows.</summary>
    Inotify,
}

/// <summary>
/// The source of events about the host's files. Opened with the share, while the daemon still has its privileges; what the
/// events mean for a guest is for <see cref="PassthroughFileSystem"/> to say.
/// </summary>
internal sealed class HostWatch : IDisposable
{
    private const FanotifyEvents FanotifyMask =
        FanotifyEvents.Modify | FanotifyEvents.Attributes | FanotifyEvents.MovedFrom | FanotifyEvents.MovedTo
        | FanotifyEvents.Create | FanotifyEvents.Delete | FanotifyEvents.DeleteSelf | FanotifyEvents.OnDirectories;

    private const InotifyEvents InotifyMask =
        InotifyEvents.Modify | InotifyEvents.Attributes | InotifyEvents.MovedFrom | InotifyEvents.MovedTo
        | InotifyEvents.Create | InotifyEvents.Delete | InotifyEvents.DeleteSelf | InotifyEvents.OnlyDirectories;

    private readonly SafeFileHandle _events;

    private HostWatch(SafeFileHandle events, bool isByFileSystem)
    {
        _events = events;
        IsByFileSystem = isByFileSystem;
    }

    /// <summary>Whether whole file systems are watched (fanotify), and not directories one by one (inotify).</summary>
    public bool IsByFileSystem { get; }

    /// <summary>The descriptor that events come from. It does not block.</summary>
    public int Descriptor => (int)_events.DangerousGetHandle();

    /// <summary>Starts to watch.</summary>
    /// <param name="how">How.</param>
    /// <param name="root">A readable descriptor of the shared directory.</param>
    /// <returns>Null when nothing is to be watched.</returns>
    /// <exception cref="ErrnoException">It cannot be watched that way.</exception>
    public static HostWatch? Open(HostWatching how, int root)
    {
        if (how == HostWatching.Off)
        {
            return null;
        }

        if (how != HostWatching.Inotify)
        {
            SyscallResult opened = FileEvents.FanotifyInit(
                FanotifyFlags.ReportFile | FanotifyFlags.ReportDirectory | FanotifyFlags.ReportName | FanotifyFlags.ReportTarget);
            if (!opened.IsError)
            {
                var watch = new HostWatch(new SafeFileHandle(opened.Descriptor, ownsHandle: true), isByFileSystem: true);
                SyscallResult marked = watch.TryWatchFileSystem(root);
                if (!marked.IsError)
                {
                    return watch;
                }

                watch.Dispose();
                opened = marked;
            }

            if (how == HostWatching.Fanotify)
            {
                opened.ThrowIfError(
                    "watch the shared directory by fanotify, which needs CAP_SYS_ADMIN, Linux 5.17 and a file system with "
                    + "file handles (use 'inotify' or 'auto')");
            }
        }

        return new HostWatch(
            new SafeFileHandle(FileEvents.InotifyInit().ThrowIfError("watch the shared directory by inotify").Descriptor, ownsHandle: true),
            isByFileSystem: false);
    }

    /// <summary>Watches one more file system.</summary>
    /// <param name="descriptor">A readable descriptor on it.</param>
    public SyscallResult TryWatchFileSystem(int descriptor) =>
        FileEvents.FanotifyMarkFileSystem(Descriptor, FanotifyMask, descriptor);

    /// <summary>Watches one more directory.</summary>
    /// <param name="name">Its name, with NUL.</param>
    /// <returns>The number of the watch.</returns>
    public SyscallResult TryWatchDirectory(ReadOnlySpan<byte> name) =>
        FileEvents.InotifyAddWatch(Descriptor, name, InotifyMask);

    /// <inheritdoc/>
    public void Dispose() => _events.Dispose();
}

/// <summary>One event of fanotify(7), taken apart.</summary>
internal ref struct FanotifyReader
{
    private ReadOnlySpan<byte> _events;

    public FanotifyReader(ReadOnlySpan<byte> events)
    {
        this = default;
        _events = events;
    }

    public FanotifyEvent Event { get; private set; }

    /// <summary>The number of the file system.</summary>
    public ulong FileSystem { get; private set; }

    /// <summary>The handle of the directory in which <see cref="Name"/> is; empty when there is none.</summary>
    public HandleView Directory { get; private set; }

    /// <summary>The name, without NUL; "." for the directory itself.</summary>
    public ReadOnlySpan<byte> Name { get; private set; }

    /// <summary>The handle of the object; empty when there is none.</summary>
    public HandleView Target { get; private set; }

    /// <summary>Takes the next event. The kernel writes them, so they are what they should be; what is not ends the list.</summary>
    public bool Read()
    {
        if (_events.Length < Unsafe.SizeOf<FanotifyEvent>())
        {
            return false;
        }

        Event = MemoryMarshal.Read<FanotifyEvent>(_events);
        if (Event.Length < Unsafe.SizeOf<FanotifyEvent>() || Event.Length > _events.Length)
        {
            return false;
        }

        Directory = default;
        Target = default;
        Name = default;
        ReadRecords(_events[Event.MetadataLength..(int)Event.Length]);
        _events = _events[(int)Event.Length..];
        return true;
    }

    private void ReadRecords(ReadOnlySpan<byte> records)
    {
        // Header 4, file system 8, struct file_handle: length 4, type 4, bytes; then the name.
        const int handleStart = 12;
        const int bytesStart = handleStart + 8;
        while (records.Length >= bytesStart)
        {
            FanotifyInfoHeader header = MemoryMarshal.Read<FanotifyInfoHeader>(records);
            int length = (int)MemoryMarshal.Read<uint>(records[handleStart..]);
            if (header.Length < bytesStart + length || header.Length > records.Length)
            {
                return;
            }

            ReadOnlySpan<byte> record = records[..header.Length];
            var handle = new HandleView(MemoryMarshal.Read<int>(record[(handleStart + 4)..]), record.Slice(bytesStart, length));
            if (header.Type is FanotifyInfoType.DirectoryAndName or FanotifyInfoType.Directory)
            {
                FileSystem = MemoryMarshal.Read<ulong>(record[4..]);
                Directory = handle;
                ReadOnlySpan<byte> rest = record[(bytesStart + length)..];
                int end = rest.IndexOf((byte)0);
                Name = end < 0 ? rest : rest[..end];
            }
            else if (header.Type == FanotifyInfoType.File)
            {
                FileSystem = MemoryMarshal.Read<ulong>(record[4..]);
                Target = handle;
            }

            records = records[header.Length..];
        }
    }
}

/// <summary>A file handle that stands in memory of somebody else.</summary>
internal readonly ref struct HandleView(int type, ReadOnlySpan<byte> bytes)
{
    public readonly int Type = type;
    public readonly ReadOnlySpan<byte> Bytes = bytes;

    public bool IsEmpty => Bytes.IsEmpty;
}
