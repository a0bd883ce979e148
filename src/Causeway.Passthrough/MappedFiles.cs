using Causeway.Linux;

namespace Causeway.Passthrough;

/// <summary>
/// The files of a share that are mapped into any guest's window: what one guest does to the size of a file concerns the
/// windows of all.
/// </summary>
internal sealed class MappedFiles
{
    // Arbitrary: enough that files rarely share one.
    private const int GateCount = 64;

    private readonly Lock[] _gates = [.. Enumerable.Range(0, GateCount).Select(_ => new Lock())];
    private readonly Lock _lock = new();
    private readonly Dictionary<(ulong Device, ulong Inode), MappedFile> _files = [];
    private readonly ObjectVersions? _versions;
    private int _count;

    /// <summary>Makes an empty table.</summary>
    /// <param name="versions">
    /// The version table, in which a file that is mapped is being changed all the time: nobody tells of stores in memory. Null for
    /// none.
    /// </param>
    public MappedFiles(ObjectVersions? versions = null) => _versions = versions;

    /// <summary>Whether there is none, which costs one read to find out.</summary>
    public bool IsEmpty => Volatile.Read(ref _count) == 0;

    /// <summary>How many there are.</summary>
    public int Count => Volatile.Read(ref _count);

    /// <summary>
    /// Whether a guest of the share has a window. From then on whoever changes a size, of any file, enters its gate first:
    /// the file may become mapped at any moment.
    /// </summary>
    public bool AreExpected { get; private set; }

    /// <summary>A guest with a window has come.</summary>
    public void Expect() => AreExpected = true;

    /// <summary>
    /// The gate of a file: held by whoever maps it or changes its size, over the system calls that do. Shared with other files.
    /// </summary>
    public Lock GateOf(ulong device, ulong inode) => _gates[(uint)HashCode.Combine(device, inode) % GateCount];

    /// <summary>Finds a file.</summary>
    /// <returns>The file, with a reference that the caller gives back; null when it is not mapped.</returns>
    public MappedFile? Find(ulong device, ulong inode)
    {
        lock (_lock)
        {
            if (!_files.TryGetValue((device, inode), out MappedFile? file))
            {
                return null;
            }

            file.References++;
            return file;
        }
    }

    /// <summary>Finds a file, or adds it.</summary>
    /// <param name="device">Its device number.</param>
    /// <param name="inode">Its inode number.</param>
    /// <param name="descriptor">An open descriptor of it, taken over: closed at once when the file is there already.</param>
    /// <param name="isWritable">Whether that is open for writing.</param>
    /// <returns>The file, with a reference that the caller gives back.</returns>
    public MappedFile Add(ulong device, ulong inode, int descriptor, bool isWritable)
    {
        MappedFile? file;
        lock (_lock)
        {
            if (!_files.TryGetValue((device, inode), out file))
            {
                file = new MappedFile(this, device, inode, descriptor, isWritable);
                _files.Add((device, inode), file);
                Volatile.Write(ref _count, _files.Count);
                descriptor = -1;
                BeginStores(inode);
            }

            file.References++;
        }

        if (descriptor >= 0)
        {
            _ = FileIO.Close(descriptor);
        }

        return file;
    }

    /// <summary>Takes one more reference.</summary>
    public void AddReference(MappedFile file)
    {
        lock (_lock)
        {
            file.References++;
        }
    }

    /// <summary>Gives a reference back; with the last one, the file is closed.</summary>
    public void Release(MappedFile file)
    {
        lock (_lock)
        {
            if (--file.References > 0)
            {
                return;
            }

            _files.Remove(file.Identity);
            Volatile.Write(ref _count, _files.Count);
            EndStores(file.Identity.Inode);
        }

        _ = FileIO.Close(file.Descriptor);
    }

    private void BeginStores(ulong inode)
    {
        if (_versions is not null)
        {
            uint word = _versions.Acquire(inode);
            _versions.Table.Begin(word);
            _versions.Table.Begin(word + 1);
        }
    }

    private void EndStores(ulong inode)
    {
        if (_versions is not null)
        {
            uint word = _versions.Find(inode);
            _versions.Table.End(word);
            _versions.Table.End(word + 1);
            _versions.Table.Log(word, word + 1);
            _versions.Release(inode);
        }
    }
}
