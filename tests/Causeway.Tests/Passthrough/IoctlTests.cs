using System.Runtime.InteropServices;
using Causeway.Fuse;
using Causeway.Linux;
using Causeway.Passthrough;

namespace Causeway.Tests.Passthrough;

/// <summary>Flags of inodes by IOCTL.</summary>
public sealed class IoctlTests
{
    private const uint ProjectInherit = 0x2000_0000;

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Flags_are_read_and_set_as_on_the_host(bool isDirectory) => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory("/var/tmp").Fill();
        string name = isDirectory ? "d" : "f";
        SkipWithoutFlags(host[name]);
        using var guest = new Guest(host.Options);
        using var open = new OpenFile(guest, name, isDirectory);

        uint flags = open.Get();
        Assert.Equal(0u, flags & InodeFlags.NoDump);
        Assert.Equal(Errno.Success, open.Set(flags | InodeFlags.NoDump));
        Assert.Equal(flags | InodeFlags.NoDump, open.Get());
        Assert.Contains("d", Host.Run("lsattr", "-d", host[name]).Split(' ')[0], StringComparison.Ordinal);

        ExtendedFlags extended = open.GetExtended();
        Assert.Equal(InodeFlags.ExtendedNoDump, extended.Flags & InodeFlags.ExtendedNoDump);
        extended.Flags &= ~InodeFlags.ExtendedNoDump;
        Assert.Equal(Errno.Success, open.SetExtended(extended));
        Assert.Equal(flags, open.Get());
    });

    [Fact]
    public void What_a_guest_must_not_change_is_EPERM() => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory("/var/tmp").Fill();
        SkipWithoutFlags(host["f"]);
        using var guest = new Guest(host.Options);
        using var open = new OpenFile(guest, "f", isDirectory: false);
        uint flags = open.Get();
        Assert.Equal(Errno.EPERM, open.Set(flags | InodeFlags.Immutable));
        Assert.Equal(Errno.EPERM, open.Set(flags | ProjectInherit | InodeFlags.NoDump));
        ExtendedFlags extended = open.GetExtended();
        Assert.Equal(Errno.EPERM, open.SetExtended(
            extended with { Flags = extended.Flags | InodeFlags.ExtendedImmutable }));
        Assert.Equal(Errno.EPERM, open.SetExtended(extended with { ProjectId = extended.ProjectId + 1 }));
        Assert.Equal(Errno.EPERM, open.SetExtended(extended with { ExtentSize = 4096 }));
        Assert.Equal(flags, open.Get());

        using var readOnly = new Guest(host.Options with { ReadOnly = true });
        using var refused = new OpenFile(readOnly, "f", isDirectory: false);
        Assert.Equal(flags, refused.Get());
        Assert.Equal(Errno.EROFS, refused.Set(flags));
        Assert.Equal(Errno.EROFS, refused.SetExtended(extended));
    });

    [Theory]
    [InlineData(InodeFlags.Immutable, InodeFlags.ExtendedImmutable, "i")]
    [InlineData(InodeFlags.AppendOnly, InodeFlags.ExtendedAppendOnly, "a")]
    public void Immutable_and_append_only_are_the_guests_if_the_operator_says_so(uint flag, uint extendedFlag, string letter) =>
        Worker.Run(() =>
        {
            using HostDirectory host = new HostDirectory("/var/tmp").Fill();
            SkipWithoutFlags(host["f"]);
            using var guest = new Guest(host.Options with { AllowImmutable = true });
            using var open = new OpenFile(guest, "f", isDirectory: false);
            uint flags = open.Get();
            Errno error = open.Set(flags | flag);
            Assert.SkipWhen(error == Errno.EPERM, "NOT CHECKED: needs CAP_LINUX_IMMUTABLE");
            try
            {
                Assert.Equal(Errno.Success, error);
                Assert.Contains(letter, Host.Run("lsattr", "-d", host["f"]).Split(' ')[0], StringComparison.Ordinal);
                Assert.Equal(Errno.EPERM, guest.Unlink(NodeId.Root, "f"));
                ExtendedFlags extended = open.GetExtended();
                Assert.Equal(extendedFlag, extended.Flags & extendedFlag);
                Assert.Equal(Errno.EPERM, open.Set(flags | flag | ProjectInherit));
                extended.Flags &= ~extendedFlag;
                Assert.Equal(Errno.Success, open.SetExtended(extended));
                Assert.Equal(flags, open.Get());
            }
            finally
            {
                Host.Run("chattr", "-i", "-a", host["f"]);
            }
        });

    [Fact]
    public void What_the_host_has_made_append_only_can_be_appended_to_and_no_more() => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory("/var/tmp").Fill();
        SkipWithoutFlags(host["f"]);
        Assert.SkipUnless(Environment.IsPrivilegedProcess, "NOT CHECKED: chattr +a needs root");
        using var guest = new Guest(host.Options);
        NodeId file = guest.Walk("f").NodeId;
        byte[] before = File.ReadAllBytes(host["f"]);
        Host.Run("chattr", "+a", host["f"]);
        try
        {
            const int append = OpenFlags.WriteOnly | OpenFlags.Append;
            Assert.Equal(Errno.EPERM, guest.Open(file, OpenFlags.WriteOnly).Error);
            Assert.Equal(Errno.EPERM, guest.Open(file, append | OpenFlags.Truncate).Error);
            HandleId handle = Guest.Good(guest.Open(file, append)).Handle;
            Assert.Equal(3, Guest.Good(guest.Write(file, handle, 0, "new"u8, append)));
            // The host would append these too, wherever the guest wants them.
            Assert.Equal(Errno.EPERM, guest.Write(file, handle, 0, "old"u8, append, FuseWriteFlags.Cache).Error);
            Assert.Equal(Errno.EPERM, guest.Write(file, handle, 0, "old"u8, OpenFlags.WriteOnly).Error);
            Assert.Equal(Errno.Success, guest.Release(file, handle));
            Assert.Equal([.. before, .. "new"u8], File.ReadAllBytes(host["f"]));

            using var delaying = new Guest(host.Options with { Writeback = true });
            Assert.Equal(Errno.EPERM, delaying.Open(delaying.Walk("f").NodeId, append).Error);
        }
        finally
        {
            Host.Run("chattr", "-a", host["f"]);
        }
    });

    [Fact]
    public void Other_requests_and_other_sizes_never_reach_the_host() => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory("/var/tmp").Fill();
        using var guest = new Guest(host.Options);
        using var open = new OpenFile(guest, "f", isDirectory: false);
        const uint fiClone = 0x4004_9409;
        const uint freeze = 0xc004_5877;
        Assert.Equal(Errno.ENOTTY, open.Call(fiClone, new byte[4], 0).Error);
        Assert.Equal(Errno.ENOTTY, open.Call(freeze, new byte[4], 4).Error);
        Assert.Equal(Errno.EINVAL, open.Call(InodeFlags.GetCommand, [], 8).Error);
        Assert.Equal(Errno.EINVAL, open.Call(InodeFlags.GetCommand, new byte[4], 4).Error);
        Assert.Equal(Errno.EINVAL, open.Call(InodeFlags.SetCommand, new byte[8], 0).Error);
        Assert.Equal(Errno.EINVAL, open.Call(InodeFlags.SetCommand, [], 0).Error);
        Assert.Equal(Errno.EINVAL, open.Call(InodeFlags.GetExtendedCommand, [], 27).Error);
        Assert.Equal(Errno.EINVAL, open.Call(InodeFlags.SetExtendedCommand, new byte[32], 0).Error);
        Assert.Equal(Errno.EBADF, open.Call(InodeFlags.GetCommand, [], 4, new HandleId(77)).Error);
    });

    private static void SkipWithoutFlags(string path)
    {
        using var file = new HostFlags(path);
        Assert.SkipUnless(file.HasFlags, $"the file system of {path} has no inode flags");
    }

    private sealed class HostFlags(string path) : IDisposable
    {
        private readonly int _descriptor = Files.Openat(
            Files.WorkingDirectory, Guest.Terminated(path), OpenFlags.ReadOnly | OpenFlags.CloseOnExec)
            .ThrowIfError("open").Descriptor;

        public bool HasFlags => !InodeFlags.Get(_descriptor, out _).IsError;

        public void Dispose() => _ = FileIO.Close(_descriptor);
    }

    private sealed class OpenFile : IDisposable
    {
        private readonly Guest _guest;
        private readonly NodeId _node;
        private readonly HandleId _handle;

        public OpenFile(Guest guest, string name, bool isDirectory)
        {
            _guest = guest;
            _node = guest.Walk(name).NodeId;
            _handle = Guest.Good(isDirectory ? guest.OpenDir(_node) : guest.Open(_node)).Handle;
        }

        public uint Get() => MemoryMarshal.Read<uint>(Guest.Good(Call(InodeFlags.GetCommand, [], 4)));

        public Errno Set(uint flags) => Call(InodeFlags.SetCommand, BitConverter.GetBytes(flags), 0).Error;

        public ExtendedFlags GetExtended() =>
            MemoryMarshal.Read<ExtendedFlags>(Guest.Good(Call(InodeFlags.GetExtendedCommand, [], 28)));

        public Errno SetExtended(ExtendedFlags flags) => Call(
            InodeFlags.SetExtendedCommand, MemoryMarshal.AsBytes(new ReadOnlySpan<ExtendedFlags>(in flags)).ToArray(), 0).Error;

        public Result<byte[]> Call(uint command, byte[] input, int outputSize, HandleId? handle = null)
        {
            byte[] output = new byte[outputSize];
            Result<int> result = Guest.Done(_guest.FileSystem.IoctlAsync(
                _node,
                new FuseIoctlIn
                {
                    Handle = handle ?? _handle,
                    Command = command,
                    InputSize = (uint)input.Length,
                    OutputSize = (uint)outputSize,
                },
                input,
                output,
                _guest.Context));
            return result.IsError ? result.Error : output[..result.Value];
        }

        public void Dispose() => Assert.Equal(Errno.Success, _guest.Release(_node, _handle));
    }
}
