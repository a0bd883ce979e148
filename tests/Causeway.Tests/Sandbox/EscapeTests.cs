using System.Globalization;
using System.Runtime.InteropServices;
using System.Text;
using Causeway.Driver;
using Causeway.Fuse;
using Causeway.Linux;
using Causeway.Tests.Daemon;

namespace Causeway.Tests.Sandbox;

/// <summary>
/// A guest whose kernel does as it likes tries to reach what is outside of the share, in every sandbox mode. In the end nothing
/// outside has changed or was told, and a second guest, on a daemon of its own and the same share, goes on as before.
/// </summary>
public sealed class EscapeTests : IDisposable
{
    private const uint ReadWrite = 2;
    private const uint Create = 0x40;
    private const uint Truncate = 0x200;
    private const int Rounds = 400;
    private const int DefaultLookups = 50_000;

    private readonly TemporaryDirectory _base = new();
    private readonly string _share;
    private readonly string _victim;
    private readonly string _outside;
    private readonly Dictionary<string, string> _before;
    private DaemonProcess? _daemon;
    private DaemonProcess? _other;
    private VirtioFsDriver? _driver;
    private VirtioFsDriver? _otherDriver;

    public EscapeTests()
    {
        Assert.SkipUnless(Environment.IsPrivilegedProcess, "NOT CHECKED: needs root");
        _share = _base.File("share");
        _victim = _base.File("victim");
        _outside = _base.File("outside");
        Directory.CreateDirectory(Path.Combine(_share, "d"));
        Directory.CreateDirectory(_outside);
        File.WriteAllText(_victim, "secret");
        File.WriteAllText(Path.Combine(_outside, "x"), "secret");
        File.WriteAllText(Path.Combine(_share, "file"), "content");
        File.WriteAllText(Path.Combine(_share, "d", "x"), "inside");
        _before = Outside();
    }

    public static TheoryData<string> Modes => new("namespace", "chroot", "none", "namespace --inode-file-handles=never");

    public void Dispose()
    {
        if (_otherDriver is not null)
        {
            // The other guest was there all the time.
            Assert.Equal("content", Read(new FuseClient(_otherDriver), "file"));
            Assert.Equal(_before, Outside());
            Assert.False(_daemon!.Process.HasExited);
            // That the guest breaks the protocol is said, once.
            Assert.DoesNotContain(
                _daemon.Complaints(), line => !line.Contains(" causeway::fuse]", StringComparison.Ordinal));
            Assert.Empty(_other!.Complaints());
        }

        _driver?.Dispose();
        _otherDriver?.Dispose();
        _daemon?.Dispose();
        _other?.Dispose();
        _base.Dispose();
    }

    [Theory]
    [MemberData(nameof(Modes))]
    public void Symbolic_links_are_never_followed(string mode)
    {
        FuseClient guest = Start(mode);
        foreach (string target in (string[])["/etc/passwd", "../victim", "..", "/", "/proc/self/root", _victim, _outside])
        {
            byte[] names = [.. "link"u8, 0, .. Encoding.UTF8.GetBytes(target), 0];
            Assert.Equal(Errno.Success, guest.Call(FuseOpcode.Symlink, NodeId.Root, names, 128, out _));
            NodeId link = guest.Lookup(NodeId.Root, "link").Value.NodeId;

            Assert.Equal(Errno.Success, guest.Call(FuseOpcode.ReadLink, link, default, 4096, out ReadOnlySpan<byte> text));
            Assert.Equal(target, Encoding.UTF8.GetString(text));
            Assert.True(guest.Open(link, 0).IsError);
            Assert.True(guest.Open(link, ReadWrite | Truncate).IsError);
            Assert.True(guest.OpenDir(link).IsError);
            Assert.True(guest.Lookup(link, "x").IsError);
            Assert.True(guest.Lookup(link, "passwd").IsError);
            Assert.True(guest.Mkdir(link, "new").IsError);
            Assert.True(guest.Create(link, "new", ReadWrite).IsError);
            Assert.NotEqual(Errno.Success, guest.Unlink(link, "x"));
            Assert.True(guest.Create(NodeId.Root, "link", ReadWrite | Create | Truncate).IsError);
            Assert.True(guest.SetAttr(link, new FuseSetAttrIn { Valid = SetAttrValid.Size, Size = 0 }).IsError);
            // A mode or time set through it must not reach the target; whether it can be set on the link is the host's affair.
            _ = guest.SetAttr(link, new FuseSetAttrIn { Valid = SetAttrValid.Mode, Mode = 0x1FF });
            _ = guest.SetAttr(link, new FuseSetAttrIn { Valid = SetAttrValid.ModificationTime, ModificationTime = 1 });
            _ = guest.SetAttr(link, new FuseSetAttrIn { Valid = SetAttrValid.UserId, UserId = 7 });
            Assert.Equal(Errno.Success, guest.Unlink(NodeId.Root, "link"));
            guest.Forget(link, 1);
        }
    }

    [Theory]
    [MemberData(nameof(Modes))]
    public void A_directory_that_turns_into_a_link_leads_nowhere(string mode)
    {
        FuseClient guest = Start(mode);
        string directory = Path.Combine(_share, "race");
        string aside = Path.Combine(_share, "aside");
        string link = Path.Combine(_share, "race-link");
        Directory.CreateDirectory(directory);
        File.WriteAllText(Path.Combine(directory, "x"), "inside");
        File.CreateSymbolicLink(link, _outside);
        bool isOver = false;
        var racer = new Thread(() =>
        {
            while (!Volatile.Read(ref isOver))
            {
                Directory.Move(directory, aside);
                Rename(link, directory);
                Rename(directory, link);
                Directory.Move(aside, directory);
            }
        });
        racer.Start();
        try
        {
            for (int i = 0; i < Rounds; i++)
            {
                Result<NodeEntry> found = guest.Lookup(NodeId.Root, "race");
                if (found.IsError)
                {
                    continue;
                }

                NodeId node = found.Value.NodeId;
                Result<NodeEntry> below = guest.Lookup(node, "x");
                if (!below.IsError && guest.Open(below.Value.NodeId, 0) is { IsError: false } open)
                {
                    guest.Read(below.Value.NodeId, open.Value.Handle, 0, 16, out ReadOnlySpan<byte> data);
                    Assert.Equal("inside"u8, data);
                    guest.Release(below.Value.NodeId, open.Value.Handle);
                }

                if (guest.Create(node, $"new{i}", ReadWrite) is { IsError: false } made)
                {
                    guest.Release(made.Value.Entry.NodeId, made.Value.Open.Handle);
                    guest.Forget(made.Value.Entry.NodeId, 1);
                }

                _ = guest.Mkdir(node, $"dir{i}");
                _ = guest.Unlink(node, $"new{i}");
                guest.Forget(node, 1);
            }
        }
        finally
        {
            Volatile.Write(ref isOver, true);
            racer.Join();
        }
    }

    [Theory]
    [MemberData(nameof(Modes))]
    public void Names_lead_down_only(string mode)
    {
        FuseClient guest = Start(mode);
        NodeId directory = guest.Lookup(NodeId.Root, "d").Value.NodeId;
        foreach (string name in (string[])["..", ".", "../victim", "/etc/passwd", "d/..", "", "d/x"])
        {
            foreach (NodeId parent in (NodeId[])[NodeId.Root, directory])
            {
                Assert.True(guest.Lookup(parent, name).IsError);
                Assert.True(guest.Create(parent, name, ReadWrite).IsError);
                Assert.True(guest.Mkdir(parent, name).IsError);
                Assert.NotEqual(Errno.Success, guest.Unlink(parent, name));
                byte[] link = [.. Bytes(directory), .. Encoding.UTF8.GetBytes(name), 0];
                Assert.NotEqual(Errno.Success, guest.Call(FuseOpcode.Link, parent, link, 128, out _));
                byte[] rename = [.. Bytes(parent), .. "file"u8, 0, .. Encoding.UTF8.GetBytes(name), 0];
                Assert.NotEqual(Errno.Success, guest.Call(FuseOpcode.Rename, NodeId.Root, rename, 0, out _));
            }
        }
    }

    [Theory]
    [MemberData(nameof(Modes))]
    public void Magic_links_of_a_proc_in_the_share_are_only_text(string mode)
    {
        string proc = Path.Combine(_share, "proc");
        Directory.CreateDirectory(proc);
        Run("mount", "-t", "proc", "proc", proc);
        try
        {
            FuseClient guest = Start(mode);
            foreach (string path in (string[])["1/root", "1/cwd", "1/exe", "1/fd/0", "self/root", "thread-self/cwd"])
            {
                string[] parts = path.Split('/');
                NodeId node = guest.Lookup(NodeId.Root, "proc").Value.NodeId;
                foreach (string part in parts)
                {
                    node = node == NodeId.None || guest.Lookup(node, part) is not { IsError: false } entry
                        ? NodeId.None
                        : entry.Value.NodeId;
                }

                // 'self' is a link itself, so that nothing is found below it.
                Assert.True(path[0] == '1' || node == NodeId.None);
                if (node != NodeId.None)
                {
                    Assert.True(guest.Open(node, 0).IsError);
                    Assert.True(guest.OpenDir(node).IsError);
                    Assert.True(guest.Lookup(node, "etc").IsError);
                    Assert.True(guest.Create(node, "new", ReadWrite).IsError);
                }
            }
        }
        finally
        {
            _driver?.Dispose();
            _daemon?.Dispose();
            _driver = null;
            Run("umount", "--lazy", proc);
            _daemon = DaemonProcess.Start(_share, $"--sandbox {mode}");
        }
    }

    [Theory]
    [MemberData(nameof(Modes))]
    public void Device_nodes_and_setuid_files_stay_files(string mode)
    {
        FuseClient guest = Start(mode);
        // Devices of the host: null, mem, the first disk.
        foreach ((uint type, uint device) in ((uint, uint)[])[(0x2000, 0x103), (0x2000, 0x101), (0x6000, 0x800), (0x6000, 0xFE00)])
        {
            byte[] request = [.. Bytes(new FuseMknodIn { Mode = type | 0x1B6, Device = device }), .. "node"u8, 0];
            Assert.Equal(Errno.Success, guest.Call(FuseOpcode.Mknod, NodeId.Root, request, 128, out _));
            NodeId node = guest.Lookup(NodeId.Root, "node").Value.NodeId;
            Assert.True(guest.Open(node, 0).IsError);
            Assert.True(guest.Open(node, ReadWrite).IsError);
            Assert.True(guest.Create(NodeId.Root, "node", ReadWrite | Create).IsError);
            Assert.Equal(Errno.Success, guest.Unlink(NodeId.Root, "node"));
            guest.Forget(node, 1);
        }

        FuseCreateOut made = guest.Create(NodeId.Root, "suid", ReadWrite, mode: 0x89ED).Value;
        guest.Write(made.Entry.NodeId, made.Open.Handle, 0, "#!/bin/sh\n"u8);
        guest.Release(made.Entry.NodeId, made.Open.Handle);
        string[] open = [.. Directory.GetFiles($"/proc/{_daemon!.Worker()}/fd").Select(SandboxedDaemon.Link)];
        Assert.DoesNotContain(open, target => target.StartsWith("/dev/", StringComparison.Ordinal)
            && target is not ("/dev/null" or "/dev/urandom"));
        Assert.All(SandboxedDaemon.StatusOfThreads(_daemon!.Worker(), "NoNewPrivs"), value => Assert.Equal("1", value));
    }

    [Theory]
    [MemberData(nameof(Modes))]
    public void Nodes_and_handles_of_the_guests_own_making_name_nothing(string mode)
    {
        FuseClient guest = Start(mode);
        NodeId file = guest.Lookup(NodeId.Root, "file").Value.NodeId;
        var random = new Random(4711);
        byte[] large = new byte[8];
        for (int i = 0; i < Rounds; i++)
        {
            random.NextBytes(large);
            ulong value = i % 2 == 0 ? BitConverter.ToUInt64(large) : (ulong)random.Next(2, 100_000);
            if (value == file.Value || value <= 1)
            {
                continue;
            }

            var node = new NodeId(value);
            var handle = new HandleId(value);
            Assert.True(guest.GetAttr(node).IsError);
            Assert.True(guest.Open(node, 0).IsError);
            Assert.True(guest.Lookup(node, "x").IsError);
            Assert.NotEqual(Errno.Success, guest.Read(file, handle, 0, 16, out _));
            Assert.True(guest.Write(file, handle, 0, "x"u8).IsError);
            Assert.True(guest.SetAttr(file, new FuseSetAttrIn
            {
                Valid = SetAttrValid.Size | SetAttrValid.Handle, Handle = handle, Size = 0,
            }).IsError);
            guest.Forget(node, 1);
        }

        Assert.Equal("content", Read(guest, "file"));
    }

    [Theory]
    [MemberData(nameof(Modes))]
    public void Descriptors_run_out_for_the_guest_that_uses_them_up_only(string mode)
    {
        FuseClient guest = Start($"{mode} --rlimit-nofile 2048");
        NodeId file = guest.Lookup(NodeId.Root, "file").Value.NodeId;
        var handles = new List<HandleId>();
        Errno error;
        do
        {
            Result<FuseOpenOut> open = guest.Open(file, 0);
            error = open.Error;
            if (!open.IsError)
            {
                handles.Add(open.Value.Handle);
            }
        }
        while (error == Errno.Success && handles.Count < 4096);

        Assert.Equal(Errno.ENFILE, error);
        Assert.False(guest.GetAttr(file).IsError);
        Assert.Equal("content", Read(new FuseClient(_otherDriver!), "file"));
        foreach (HandleId handle in handles)
        {
            Assert.Equal(Errno.Success, guest.Release(file, handle));
        }

        Assert.Equal("content", Read(guest, "file"));
    }

    [Theory]
    [MemberData(nameof(Modes))]
    public void Any_number_of_lookups_costs_nothing(string mode)
    {
        int lookups = int.Parse(
            Environment.GetEnvironmentVariable("CAUSEWAY_LOOKUPS") ?? $"{DefaultLookups}", CultureInfo.InvariantCulture);
        FuseClient guest = Start(mode);
        NodeId file = guest.Lookup(NodeId.Root, "file").Value.NodeId;
        NodeId directory = guest.Lookup(NodeId.Root, "d").Value.NodeId;
        long before = Resident();
        int descriptors = Descriptors();
        for (int i = 0; i < lookups; i++)
        {
            Result<NodeEntry> found = guest.Lookup(NodeId.Root, i % 3 == 2 ? "none" : i % 3 == 1 ? "d" : "file");
            Assert.True(i % 3 == 2 ? found.Error == Errno.ENOENT || found.Value.NodeId == NodeId.None : !found.IsError);
        }

        TestContext.Current.TestOutputHelper!.WriteLine(
            $"{lookups} lookups: from {before >> 10} to {Resident() >> 10} MiB, from {descriptors} to {Descriptors()} descriptors");
        // Two nodes, however often they are asked for (arbitrary: what a collection or two may leave).
        Assert.InRange(Resident(), 0, before + (8 << 10));
        // A thread that stands by has some (arbitrary).
        Assert.InRange(Descriptors(), 0, descriptors + 16);

        // All of them are counted: with as many forgotten the nodes are gone, with one fewer they are not.
        guest.Forget(file, (ulong)(lookups + 2) / 3);
        Assert.False(guest.GetAttr(file).IsError);
        guest.Forget(file, 1);
        Assert.True(guest.GetAttr(file).IsError);
        guest.Forget(directory, (ulong)(lookups + 1) / 3);
        Assert.False(guest.GetAttr(directory).IsError);
        guest.Forget(directory, 1);
        Assert.True(guest.GetAttr(directory).IsError);
    }

    private static byte[] Bytes<T>(T value)
        where T : unmanaged => MemoryMarshal.AsBytes(new ReadOnlySpan<T>(in value)).ToArray();

    private static string Read(FuseClient guest, string name)
    {
        NodeId node = guest.Lookup(NodeId.Root, name).Value.NodeId;
        HandleId handle = guest.Open(node, 0).Value.Handle;
        Assert.Equal(Errno.Success, guest.Read(node, handle, 0, 100, out ReadOnlySpan<byte> data));
        string text = Encoding.UTF8.GetString(data);
        guest.Release(node, handle);
        guest.Forget(node, 1);
        return text;
    }

    private static void Rename(string from, string to) => Files.Renameat2(
        Files.WorkingDirectory, Encoding.UTF8.GetBytes(from + '\0'), Files.WorkingDirectory, Encoding.UTF8.GetBytes(to + '\0'), 0)
        .ThrowIfError("rename");

    private static void Run(string program, params string[] arguments)
    {
        using var process = System.Diagnostics.Process.Start(program, arguments);
        process.WaitForExit();
        Assert.Equal(0, process.ExitCode);
    }

    private long Resident() => long.Parse(
        SandboxedDaemon.Status(_daemon!.Worker(), "VmRSS").Split(' ')[0], CultureInfo.InvariantCulture);

    private int Descriptors() => Directory.GetFileSystemEntries($"/proc/{_daemon!.Worker()}/fd").Length;

    private FuseClient Start(string options)
    {
        _daemon = DaemonProcess.Start(_share, $"--sandbox {options}");
        _other = DaemonProcess.Start(_share, $"--sandbox {options}");
        _driver = _daemon.Connect();
        _otherDriver = _other.Connect();
        var guest = new FuseClient(_driver);
        Assert.False(guest.Initialize().IsError);
        Assert.False(new FuseClient(_otherDriver).Initialize().IsError);
        return guest;
    }

    // Everything that must not change: contents, modes, owners and times.
    private Dictionary<string, string> Outside()
    {
        var state = new Dictionary<string, string>();
        foreach (string path in (string[])[_victim, _outside, .. Directory.GetFileSystemEntries(_outside), "/etc/passwd"])
        {
            Files.Statx(
                Files.WorkingDirectory, Encoding.UTF8.GetBytes(path + '\0'), AtFlags.NoFollow, StatxMask.Basic,
                out StatxBuffer status).ThrowIfError("statx");
            state[path] = $"{status.Mode} {status.UserId} {status.GroupId} {status.ModificationTime.Seconds} {status.Size} "
                + (Directory.Exists(path) ? string.Empty : File.ReadAllText(path));
        }

        return state;
    }
}
