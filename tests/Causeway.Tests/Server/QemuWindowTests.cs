using Causeway.Fuse;
using Causeway.Linux;
using Causeway.Passthrough;
using Causeway.Tests.Passthrough;

namespace Causeway.Tests.Server;

/// <summary>
/// What a front end like QEMU must never be asked, and that files are right for its guests all the same
/// (vhost-user.md 18.4 to 18.7).
/// </summary>
public sealed class QemuWindowTests : IDisposable
{
    private const ulong Slot = DaxGuest.Slot;
    private const FuseMappingFlags ReadWrite = FuseMappingFlags.Read | FuseMappingFlags.Write;

    private readonly HostDirectory _host = new();

    [Fact]
    public void Only_files_of_whole_pages_that_may_be_written_are_offered()
    {
        DaxGuest.WriteFile(_host["whole"], 1 << 20);
        DaxGuest.WriteFile(_host["odd"], (1 << 20) + 1);
        DaxGuest.WriteFile(_host["empty"], 0);
        using DaxGuest guest = new(_host.Options);
        using QemuWindow window = new(guest.Driver);
        Assert.Equal(21, guest.Initialize().MapAlignment);
        Assert.Equal(FuseAttributeFlags.Dax, guest.Lookup("whole").Attributes.Flags);
        Assert.Equal(FuseAttributeFlags.None, guest.Lookup("odd").Attributes.Flags);
        Assert.Equal(FuseAttributeFlags.None, guest.Lookup("empty").Attributes.Flags);
        AssertUnharmed(window);
    }

    [Fact]
    public void A_share_that_may_only_be_read_is_not_mapped_at_all()
    {
        DaxGuest.WriteFile(_host["f"], 1 << 20);
        using DaxGuest guest = new(_host.Options with { ReadOnly = true });
        using QemuWindow window = new(guest.Driver);
        guest.Initialize();
        NodeEntry entry = guest.Lookup("f");
        Assert.Equal(FuseAttributeFlags.None, entry.Attributes.Flags);
        Assert.Equal(Errno.EOPNOTSUPP, guest.Map(entry.NodeId, 0));
        Assert.Equal(0, window.MappingCount);
        AssertUnharmed(window);
    }

    [Fact]
    public void A_guest_that_maps_everything_gets_errors_for_what_would_be_damaged()
    {
        DaxGuest.WriteFile(_host["whole"], 1 << 20);
        DaxGuest.WriteFile(_host["odd"], 5000);
        DaxGuest.WriteFile(_host["empty"], 0);
        using DaxGuest guest = new(_host.Options);
        using QemuWindow window = new(guest.Driver);
        guest.Initialize(always: true);
        Assert.Equal(Errno.Success, guest.Map(guest.Lookup("whole").NodeId, 0));
        Assert.Equal(Errno.EINVAL, guest.Map(guest.Lookup("odd").NodeId, Slot));
        Assert.Equal(Errno.EINVAL, guest.Map(guest.Lookup("empty").NodeId, Slot));
        Assert.Equal(5000, new FileInfo(_host["odd"]).Length);
        Assert.Equal(0, new FileInfo(_host["empty"]).Length);
        AssertUnharmed(window);
    }

    [Fact]
    public void What_a_mapped_file_grows_by_is_mapped_before_the_guest_knows()
    {
        DaxGuest.WriteFile(_host["f"], 1 << 20);
        using DaxGuest guest = new(_host.Options);
        using QemuWindow window = new(guest.Driver);
        guest.Initialize();
        NodeId node = guest.Lookup("f").NodeId;
        Assert.Equal(Errno.Success, guest.Map(node, 0, flags: ReadWrite));
        Assert.Null(window.Look((1 << 20) - 1, 2));
        HandleId handle = guest.Client.Open(node, flags: 2).Value.Handle;

        Assert.Equal(3u, guest.Client.Write(node, handle, 1 << 20, "abc"u8).Value.Size);
        Assert.Equal("abc"u8, window.Look(1 << 20, 3)!);
        Assert.Equal((1 << 20) + 3, new FileInfo(_host["f"]).Length);
        // From now on the file is not one for QEMU, and the guest lets go of it when it can.
        Assert.Equal(FuseAttributeFlags.None, guest.Client.GetAttr(node).Value.Attributes.Flags);

        // The rest of the slot costs nothing more; the next slot is mapped when the guest asks.
        int requests = window.Requests;
        Assert.Equal(3u, guest.Client.Write(node, handle, 1_500_000, "def"u8).Value.Size);
        Assert.Equal("def"u8, window.Look(1_500_000, 3)!);
        Assert.Equal(requests, window.Requests);
        Assert.Equal(Errno.Success, guest.Resize(node, (3 << 20) + 5));
        Assert.Equal(Errno.Success, guest.Map(node, Slot, Slot, flags: ReadWrite));
        Assert.Equal(0, window.Look(Slot + (1 << 20) + 4, 1)![0]);
        Assert.Equal((3 << 20) + 5, new FileInfo(_host["f"]).Length);

        // A guest that has let go of the end of such a file maps it again.
        Assert.Equal(Errno.Success, guest.Unmap((0, ulong.MaxValue)));
        Assert.Equal(0, window.MappingCount);
        Assert.Equal(Errno.Success, guest.Map(node, 3 * Slot, Slot, flags: ReadWrite));
        Assert.NotNull(window.Look((3 * Slot) + (1 << 20), 5));
        Assert.Equal((3 << 20) + 5, new FileInfo(_host["f"]).Length);
        AssertUnharmed(window);
    }

    [Fact]
    public void What_the_host_has_appended_is_mapped_before_the_guest_knows()
    {
        DaxGuest.WriteFile(_host["f"], 1 << 20);
        using DaxGuest guest = new(_host.Options);
        using QemuWindow window = new(guest.Driver);
        guest.Initialize();
        NodeId node = guest.Lookup("f").NodeId;
        Assert.Equal(Errno.Success, guest.Map(node, 0));
        File.AppendAllText(_host["f"], "appended");
        Assert.Equal((1UL << 20) + 8, guest.Client.GetAttr(node).Value.Attributes.Size);
        Assert.Equal("appended"u8, window.Look(1 << 20, 8)!);
        AssertUnharmed(window);
    }

    [Fact]
    public void What_one_guest_cuts_off_is_unmapped_from_all_before()
    {
        DaxGuest.WriteFile(_host["f"], 4 << 20);
        using var share = Share.Open(_host.Options);
        using DaxGuest first = new(share);
        using QemuWindow firstWindow = new(first.Driver);
        first.Initialize();
        using DaxGuest second = new(share);
        using QemuWindow secondWindow = new(second.Driver);
        second.Initialize();
        NodeId node = first.Lookup("f").NodeId;
        NodeId same = second.Lookup("f").NodeId;
        Assert.Equal(Errno.Success, first.Map(node, 0, 0, 2 * Slot));
        Assert.Equal(Errno.Success, second.Map(same, 0, 0, 2 * Slot));

        // To where a page ends in the middle, and once more within that page.
        foreach (ulong size in new ulong[] { 1_000_000, 999_990 })
        {
            Assert.Equal(Errno.Success, first.Resize(node, size));
            Assert.Equal((long)size, new FileInfo(_host["f"]).Length);
            foreach (QemuWindow window in new[] { firstWindow, secondWindow })
            {
                byte[] page = window.Look(999_424, 4096)!;
                Assert.Equal(DaxGuest.ByteAt(999_424), page[0]);
                Assert.Equal(DaxGuest.ByteAt((long)size - 1), page[(int)size - 999_424 - 1]);
                Assert.Equal(0, page[(int)size - 999_424]);
                Assert.Null(window.Look(1_003_520, 1));
            }
        }

        HandleId handle = second.Client.Open(same, flags: 0x201).Value.Handle;
        Assert.Equal(0, firstWindow.MappingCount);
        Assert.Equal(0, secondWindow.MappingCount);
        Assert.Equal(1u, second.Client.Write(same, handle, 0, "x"u8).Value.Size);
        Assert.Equal("x"u8, firstWindow.Look(0, 1)!);
        Assert.Equal("x"u8, secondWindow.Look(0, 1)!);
        Assert.Equal(1, new FileInfo(_host["f"]).Length);
        AssertUnharmed(firstWindow);
        AssertUnharmed(secondWindow);
    }

    [Fact]
    public void A_file_that_could_not_be_cut_off_stays_mapped()
    {
        DaxGuest.WriteFile(_host["f"], 1 << 20);
        using DaxGuest guest = new(_host.Options);
        using QemuWindow window = new(guest.Driver);
        guest.Initialize();
        NodeId node = guest.Lookup("f").NodeId;
        Assert.Equal(Errno.Success, guest.Map(node, 0, flags: ReadWrite));
        window.Store(9, 0x77);
        Host.Run("chattr", "+i", _host["f"]);
        try
        {
            Assert.NotEqual(Errno.Success, guest.Resize(node, 0));
            Assert.Equal(0x77, window.Look(9, 1)![0]);
            Assert.Equal(1 << 20, new FileInfo(_host["f"]).Length);
        }
        finally
        {
            Host.Run("chattr", "-i", _host["f"]);
        }

        AssertUnharmed(window);
    }

    [Fact]
    public void A_hole_needs_no_message_because_the_host_takes_the_pages_from_all()
    {
        DaxGuest.WriteFile(_host["f"], 1 << 20);
        using DaxGuest guest = new(_host.Options);
        using QemuWindow window = new(guest.Driver);
        guest.Initialize();
        NodeId node = guest.Lookup("f").NodeId;
        Assert.Equal(Errno.Success, guest.Map(node, 0, flags: ReadWrite));
        Assert.Equal(DaxGuest.ByteAt(8192), window.Look(8192, 1)![0]);
        int requests = window.Requests;
        Host.Run("fallocate", "--punch-hole", "--offset", "8192", "--length", "4096", _host["f"]);
        Assert.Equal(0, window.Look(8192, 1)![0]);
        window.Store(8193, 0x42);
        Assert.Equal(0x42, File.ReadAllBytes(_host["f"])[8193]);
        Assert.Equal(requests, window.Requests);
    }

    [Fact]
    public void Nobody_is_asked_while_the_device_is_stopped_and_a_pause_keeps_the_mappings()
    {
        DaxGuest.WriteFile(_host["f"], 4 << 20);
        DaxGuest.WriteFile(_host["other"], 4 << 20);
        using var share = Share.Open(_host.Options);
        using DaxGuest guest = new(share);
        using QemuWindow window = new(guest.Driver);
        guest.Initialize();
        using DaxGuest second = new(share);
        using QemuWindow secondWindow = new(second.Driver);
        second.Initialize();
        NodeId node = guest.Lookup("f").NodeId;
        Assert.Equal(Errno.Success, guest.Map(node, 0));

        (ushort high, ushort request) = Stop(guest);
        window.IsStarted = false;
        int requests = window.Requests;

        // What others do meanwhile, with the same file and with another one.
        NodeId same = second.Lookup("f").NodeId;
        Assert.Equal(Errno.Success, second.Map(same, 0));
        Assert.Equal(Errno.Success, second.Resize(same, 6 << 20));
        Assert.Equal(Errno.Success, second.Resize(second.Lookup("other").NodeId, 4096));
        Assert.Equal(requests, window.Requests);
        window.IsStarted = true;
        guest.Driver.RestartQueue(0, high);
        guest.Driver.RestartQueue(1, request);

        Assert.Equal(DaxGuest.ByteAt(3), window.Look(3, 1)![0]);
        Assert.Equal(Errno.Success, guest.Map(node, Slot, Slot));
        Assert.Equal(Errno.Success, guest.Unmap((0, Slot)));
        Assert.Equal(1, window.MappingCount);
        Assert.Equal(requests + 2, window.Requests);
        AssertUnharmed(window);
    }

    [Fact]
    public void After_a_reset_with_mappings_the_same_places_are_used_again()
    {
        DaxGuest.WriteFile(_host["f"], 4 << 20);
        using DaxGuest guest = new(_host.Options);
        using QemuWindow window = new(guest.Driver);
        for (int cycle = 0; cycle < 3; cycle++)
        {
            guest.Initialize();
            NodeId node = guest.Lookup("f").NodeId;
            Assert.Equal(Errno.Success, guest.Map(node, 0, 0, 2 * Slot));
            Assert.Equal(2, window.MappingCount);

            (ushort high, ushort request) = Stop(guest);
            window.IsStarted = false;
            window.Reset();
            guest.Driver.Frontend.ResetDevice();
            Assert.True(guest.Share.MappedFiles.IsEmpty);
            window.IsStarted = true;
            guest.Driver.RestartQueue(0, high);
            guest.Driver.RestartQueue(1, request);
        }

        AssertUnharmed(window);
    }

    [Fact]
    public void A_front_end_that_keeps_its_mappings_over_a_reset_is_asked_to_end_them()
    {
        DaxGuest.WriteFile(_host["f"], 4 << 20);
        using DaxGuest guest = new(_host.Options);
        using QemuWindow window = new(guest.Driver);
        guest.Initialize();
        Assert.Equal(Errno.Success, guest.Map(guest.Lookup("f").NodeId, 0, Slot));
        (ushort high, ushort request) = Stop(guest);
        guest.Driver.Frontend.ResetDevice();
        guest.Driver.RestartQueue(0, high);
        guest.Driver.RestartQueue(1, request);
        guest.Initialize();
        Assert.Equal(Errno.Success, guest.Map(guest.Lookup("f").NodeId, 0, 0));
        Assert.Equal(DaxGuest.ByteAt(0), window.Look(0, 1)![0]);
        Assert.Equal(1, window.MappingCount);
    }

    [Fact]
    public void A_thousand_mappings_come_and_go_and_leave_nothing()
    {
        DaxGuest.WriteFile(_host["f"], 32 << 20);
        using DaxGuest guest = new(_host.Options);
        using QemuWindow window = new(guest.Driver);
        guest.Initialize(always: true);
        NodeId node = guest.Lookup("f").NodeId;
        int descriptors = _host.OpenDescriptors().Count;
        for (ulong cycle = 0; cycle < 1000; cycle++)
        {
            Assert.Equal(Errno.Success, guest.Map(node, cycle % 8 * Slot, cycle % 16 * Slot));
            Assert.Equal(Errno.Success, guest.Unmap((cycle % 8 * Slot, Slot)));
        }

        Assert.Equal(0, window.MappingCount);
        Assert.True(guest.Share.MappedFiles.IsEmpty);
        Assert.Equal(descriptors, _host.OpenDescriptors().Count);
        AssertUnharmed(window);
    }

    public void Dispose() => _host.Dispose();

    private static (ushort High, ushort Request) Stop(DaxGuest guest) =>
        (guest.Driver.Frontend.StopRing(0), guest.Driver.Frontend.StopRing(1));

    private static void AssertUnharmed(QemuWindow window) => Assert.Empty(window.Crashes);
}
