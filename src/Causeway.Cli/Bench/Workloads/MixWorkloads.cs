using Causeway.Fuse;
using Causeway.Linux;

namespace Causeway.Cli.Bench.Workloads;

/// <summary>
/// What 'git status' asks for on a tree of 10,000 files in 100 directories that nothing is known of: for each directory LOOKUP
/// of it and its hundred files, of a '.gitignore' that is not there, OPEN, GETATTR, READ and RELEASE of ten files, OPENDIR,
/// READDIRPLUS, RELEASEDIR, and FORGET of everything. One operation is a file, so that slices have many.
/// </summary>
internal sealed class GitStatus : Workload
{
    private const int Folders = 100;
    private const int FilesPerFolder = 100;
    private const int FilesPerRead = 10;

    private readonly byte[][] _folders = [.. Enumerable.Range(0, Folders).Select(number => Name("d", number))];
    private readonly byte[][] _files = [.. Enumerable.Range(0, FilesPerFolder).Select(number => Name("f", number))];
    private readonly byte[] _ignored = ".gitignore\0"u8.ToArray();
    private int _next = -1;

    // No two lanes may be in one directory: each forgets what it knows.
    public override int MaxLanesPerQueue => 16;

    public override IEnumerator<Request> Run(Lane lane)
    {
        var nodes = new NodeId[FilesPerFolder];
        var listing = new Listing(FilesPerFolder);
        while (true)
        {
            yield return lane.Ask(
                FuseOpcode.Lookup, Folder, 128, _folders[(uint)Interlocked.Increment(ref _next) % Folders]);
            NodeId folder = lane.Reply<NodeEntry>().NodeId;
            for (int i = 0; i < FilesPerFolder; i++)
            {
                yield return lane.Ask(FuseOpcode.Lookup, folder, 128, _files[i]);
                NodeEntry entry = lane.Reply<NodeEntry>();
                lane.Expect(entry.Attributes.Size == (ulong)SizeOf(i), "has the size of another file");
                nodes[i] = entry.NodeId;
                lane.Done();
            }

            yield return lane.Ask(FuseOpcode.Lookup, folder, 128, _ignored);
            lane.ExpectMissing();
            for (int i = 0; i < FilesPerFolder; i += FilesPerRead)
            {
                yield return lane.Ask(FuseOpcode.Open, nodes[i], default(FuseOpenIn), 16);
                HandleId file = lane.Reply<FuseOpenOut>().Handle;
                yield return lane.Ask(FuseOpcode.GetAttr, nodes[i], default(FuseGetAttrIn), 104);
                lane.Expect(lane.Reply<FuseAttrOut>().Attributes.Size == (ulong)SizeOf(i), "has the size of another file");
                yield return lane.Ask(
                    FuseOpcode.Read, nodes[i], new FuseReadIn { Handle = file, Size = Pattern.PageBytes }, Pattern.PageBytes);
                lane.Expect(
                    lane.Content().Length == SizeOf(i) && Pattern.IsAt(lane.Content(), 0), "has other bytes than the file");
                yield return lane.Ask(FuseOpcode.Release, nodes[i], new FuseReleaseIn { Handle = file }, 0);
                lane.Empty();
            }

            yield return lane.Ask(FuseOpcode.OpenDir, folder, default(FuseOpenIn), 16);
            HandleId directory = lane.Reply<FuseOpenOut>().Handle;
            listing.Clear();
            do
            {
                yield return lane.Ask(
                    FuseOpcode.ReadDirPlus,
                    folder,
                    new FuseReadIn { Handle = directory, Offset = listing.Offset, Size = Listing.ReplyBytes },
                    Listing.ReplyBytes);
            }
            while (listing.Add(lane, isPlus: true));
            lane.Expect(listing.Count == FilesPerFolder, $"ends after {listing.Count} names of {FilesPerFolder}");
            yield return lane.Ask(FuseOpcode.ReleaseDir, folder, new FuseReleaseIn { Handle = directory }, 0);
            lane.Empty();
            foreach (NodeId node in nodes)
            {
                // Looked up twice: by its name, and by the listing.
                lane.Forget(node, 2);
            }

            lane.Forget(folder);
        }
    }

    protected override void Make(int lanes)
    {
        for (int i = 0; i < Folders; i++)
        {
            MakeFiles(Directory.CreateDirectory(HostPath(Text("d", i))).FullName, "f", FilesPerFolder);
        }
    }
}

/// <summary>
/// What 'npm install' asks for where 10,000 files in 500 packages are: makes a package of twenty files under a passing name,
/// renames it, and removes the oldest one. One operation is a file that is made or removed.
/// </summary>
internal sealed class NpmInstall : Workload
{
    private const int Packages = 500;
    private const int FilesPerPackage = 20;
    private const uint FolderMode = 0x1ED;
    private const uint FileMode = 0x81A4;

    // Half of the files of such trees are below 2 KiB (arbitrary otherwise).
    private static readonly int[] s_sizes = [200, 400, 700, 1000, 1400, 2000, 3000, 5000, 9000, 20_000];

    private readonly byte[][] _files = [.. Enumerable.Range(0, FilesPerPackage).Select(number => Name("file", number))];
    private int _next = Packages - 1;

    public override int MaxLanesPerQueue => 16;

    public override IEnumerator<Request> Run(Lane lane)
    {
        var nodes = new NodeId[FilesPerPackage];
        byte[] data = new byte[s_sizes[^1]];
        Pattern.Fill(data, 0);
        while (true)
        {
            int number = Interlocked.Increment(ref _next);
            byte[] passing = Name(".package-", number);
            byte[] name = Name("package-", number);
            yield return lane.Ask(FuseOpcode.Lookup, Folder, 128, passing);
            lane.ExpectMissing();
            yield return lane.Ask(FuseOpcode.Mkdir, Folder, new FuseMkdirIn { Mode = FolderMode }, 128, passing);
            NodeId folder = lane.Reply<NodeEntry>().NodeId;
            for (int i = 0; i < FilesPerPackage; i++)
            {
                yield return lane.Ask(FuseOpcode.Lookup, folder, 128, _files[i]);
                lane.ExpectMissing();
                var create = new FuseCreateIn { Flags = OpenFlags.ReadWrite, Mode = FileMode };
                yield return lane.Ask(FuseOpcode.Create, folder, create, 144, _files[i]);
                FuseCreateOut made = lane.Reply<FuseCreateOut>();
                nodes[i] = made.Entry.NodeId;
                var write = new FuseWriteIn { Handle = made.Open.Handle, Size = (uint)SizeOfFile(i) };
                yield return lane.Ask(FuseOpcode.Write, nodes[i], write, 8, data.AsSpan(0, SizeOfFile(i)));
                lane.Expect(lane.Reply<FuseWriteOut>().Size == (uint)SizeOfFile(i), "has written less than all");
                yield return lane.Ask(FuseOpcode.Release, nodes[i], new FuseReleaseIn { Handle = made.Open.Handle }, 0);
                lane.Empty();
                lane.Done();
            }

            yield return lane.Ask(FuseOpcode.Rename, Folder, new FuseRenameIn { NewParent = Folder }, 0, passing, name);
            lane.Empty();
            foreach (NodeId node in nodes)
            {
                lane.Forget(node);
            }

            lane.Forget(folder);

            byte[] old = Name("package-", number - Packages);
            yield return lane.Ask(FuseOpcode.Lookup, Folder, 128, old);
            folder = lane.Reply<NodeEntry>().NodeId;
            for (int i = 0; i < FilesPerPackage; i++)
            {
                yield return lane.Ask(FuseOpcode.Lookup, folder, 128, _files[i]);
                NodeEntry entry = lane.Reply<NodeEntry>();
                lane.Expect(entry.Attributes.Size == (ulong)SizeOfFile(i), "has another size than was written");
                yield return lane.Ask(FuseOpcode.Unlink, folder, 0, _files[i]);
                lane.Empty();
                lane.Forget(entry.NodeId);
                lane.Done();
            }

            yield return lane.Ask(FuseOpcode.Rmdir, Folder, 0, old);
            lane.Empty();
            lane.Forget(folder);
        }
    }

    protected override void Make(int lanes)
    {
        for (int i = 0; i < Packages; i++)
        {
            string folder = Directory.CreateDirectory(HostPath(Text("package-", i))).FullName;
            for (int file = 0; file < FilesPerPackage; file++)
            {
                Pattern.WriteFile(Path.Combine(folder, Text("file", file)), SizeOfFile(file));
            }
        }
    }

    private static int SizeOfFile(int number) => s_sizes[number % s_sizes.Length];
}
