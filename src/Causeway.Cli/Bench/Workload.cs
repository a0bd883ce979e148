using System.Globalization;
using System.Text;
using Causeway.Driver;
using Causeway.Fuse;
using Causeway.Linux;

namespace Causeway.Cli.Bench;

/// <summary>What an operation is about; means are taken per kind.</summary>
internal enum OperationKind
{
    /// <summary>Names and attributes.</summary>
    Metadata,

    /// <summary>Content of files.</summary>
    Data,

    /// <summary>What a program does, made of many requests.</summary>
    Mix,

    /// <summary>Content that is not in memory; measured only when named, as it is the disk that is measured.</summary>
    Disk,
}

/// <summary>An operation that can be measured.</summary>
/// <param name="Name">What '--only' and the results call it.</param>
/// <param name="Kind">What it is about.</param>
/// <param name="Summary">What one operation is, for the help.</param>
/// <param name="Create">Makes a workload for one daemon.</param>
internal sealed record Operation(string Name, OperationKind Kind, string Summary, Func<Workload> Create);

/// <summary>What lanes ask one daemon for, over and over, and what that needs.</summary>
internal abstract class Workload
{
    /// <summary>How many lanes of a queue make sense.</summary>
    public virtual int MaxLanesPerQueue => int.MaxValue;

    /// <summary>The directory of the operation, looked up.</summary>
    protected NodeId Folder { get; private set; }

    /// <summary>The directory of the operation as this process sees it.</summary>
    protected string HostFolder { get; private set; } = "";

    /// <summary>Begins to make the files that the operation needs; <see cref="MakeMore"/> goes on.</summary>
    /// <param name="session">The daemon, which is not asked.</param>
    /// <param name="lanes">How many lanes there will be.</param>
    public void BeginMaking(DaemonSession session, int lanes)
    {
        HostFolder = Path.Combine(session.Share, "bench");
        Directory.CreateDirectory(HostFolder);
        // So that other users may create there.
        _ = Files.Fchmodat(Files.WorkingDirectory, Encoding.UTF8.GetBytes(HostFolder + '\0'), 0x1FF)
            .ThrowIfError("let others create files");
        Make(lanes);
    }

    /// <summary>
    /// Makes the next part of large files. The workloads of all daemons take turns: which memory a file has got makes a fifth of the
    /// time that reading it takes, and the one that was made first had the worst.
    /// </summary>
    /// <returns>Whether there was one.</returns>
    public virtual bool MakeMore() => false;

    /// <summary>Looks up what the operation knows beforehand.</summary>
    /// <param name="session">The daemon.</param>
    /// <param name="lanes">How many lanes there will be.</param>
    public void Prepare(DaemonSession session, int lanes)
    {
        Folder = Known(session.Client.Lookup(NodeId.Root, "bench"), "bench").NodeId;
        LookUp(session, lanes);
    }

    /// <summary>Called before each slice.</summary>
    public virtual void BeforeSlice()
    {
    }

    /// <summary>What a lane asks, without end.</summary>
    public abstract IEnumerator<Request> Run(Lane lane);

    /// <summary>Looks at what is left, and removes it.</summary>
    public void End(DaemonSession session)
    {
        Check();
        CloseAll(session.Client);
        session.Client.Forget(Folder, 1);
        Directory.Delete(HostFolder, recursive: true);
    }

    /// <summary>Makes files, without the daemon.</summary>
    protected virtual void Make(int lanes)
    {
    }

    /// <summary>Has the daemon know what it is to know.</summary>
    protected virtual void LookUp(DaemonSession session, int lanes)
    {
    }

    /// <summary>Looks at the files that were written, without the daemon.</summary>
    protected virtual void Check()
    {
    }

    /// <summary>Closes what <see cref="LookUp"/> has opened.</summary>
    protected virtual void CloseAll(FuseClient client)
    {
    }

    /// <summary>The path of something below the operation's directory.</summary>
    protected string HostPath(string name) => Path.Combine(HostFolder, name);

    /// <summary>A name with a number, as it is sent.</summary>
    protected static byte[] Name(string prefix, int number) => Encoding.UTF8.GetBytes(Text(prefix, number) + '\0');

    /// <summary>A name with a number.</summary>
    protected static string Text(string prefix, int number) => prefix + number.ToString("d5", CultureInfo.InvariantCulture);

    /// <summary>What a reply outside the measurement must be.</summary>
    protected static T Known<T>(Result<T> result, string name) => result.IsError
        ? throw new BadReplyException($"'{name}' cannot be used: {result.Error}")
        : result.Value;

    /// <summary>Makes small files of different sizes.</summary>
    protected static void MakeFiles(string folder, string prefix, int count)
    {
        for (int i = 0; i < count; i++)
        {
            Pattern.WriteFile(Path.Combine(folder, Text(prefix, i)), SizeOf(i));
        }
    }

    /// <summary>The size of a small file in bytes: no two neighbours have the same, so that a mix-up is noticed.</summary>
    protected static int SizeOf(int number) => 100 + (number % 900);
}

/// <summary>A directory of small files that the daemon knows.</summary>
internal sealed class KnownFiles
{
    private readonly NodeEntry[] _entries;

    private KnownFiles(NodeEntry[] entries) => _entries = entries;

    /// <summary>Looks them up; the attributes must be right.</summary>
    public static KnownFiles LookUp(FuseClient client, NodeId folder, string prefix, int count, Func<int, long> size)
    {
        var entries = new NodeEntry[count];
        for (int i = 0; i < count; i++)
        {
            string name = prefix + i.ToString("d5", CultureInfo.InvariantCulture);
            Result<NodeEntry> result = client.Lookup(folder, name);
            entries[i] = result.IsError
                ? throw new BadReplyException($"the reply to LOOKUP of '{name}' is the error {result.Error}")
                : result.Value;
            if (entries[i].NodeId == NodeId.None || entries[i].Attributes.Size != (ulong)size(i))
            {
                throw new BadReplyException(
                    $"the reply to LOOKUP of '{name}' says {entries[i].Attributes.Size} bytes, and the file has {size(i)}");
            }
        }

        return new KnownFiles(entries);
    }

    /// <summary>How many they are.</summary>
    public int Count => _entries.Length;

    /// <summary>The node of one.</summary>
    public NodeId Node(int number) => _entries[number].NodeId;

    /// <summary>Compares what a reply says with what was said when it was looked up.</summary>
    public void Check(Lane lane, int number, in FuseAttributes attributes)
    {
        ref readonly FuseAttributes known = ref _entries[number].Attributes;
        if (attributes.Inode != known.Inode || attributes.Size != known.Size || attributes.Mode != known.Mode)
        {
            throw lane.Bad(
                $"says inode {attributes.Inode}, {attributes.Size} bytes, mode 0x{attributes.Mode:x}, and the file is inode "
                + $"{known.Inode}, {known.Size} bytes, mode 0x{known.Mode:x}");
        }
    }

    /// <summary>Compares a whole entry.</summary>
    public void Check(Lane lane, int number, in NodeEntry entry)
    {
        if (entry.NodeId != _entries[number].NodeId)
        {
            throw lane.Bad($"names node {entry.NodeId.Value}, which was {_entries[number].NodeId.Value} before");
        }

        Check(lane, number, in entry.Attributes);
    }
}
