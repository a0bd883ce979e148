using Causeway.Driver;
using Causeway.Fuse;
using Causeway.Linux;
using Causeway.Passthrough;
using Causeway.Tests.Passthrough;
using Causeway.VhostUser.Frontend;

namespace Causeway.Tests.Server;

/// <summary>The DAX window, from our own front end, which maps any page and keeps what may only be read so.</summary>
public sealed class DaxTests : IDisposable
{
    private const ulong Slot = DaxGuest.Slot;
    private const FuseMappingFlags ReadWrite = FuseMappingFlags.Read | FuseMappingFlags.Write;

    private readonly HostDirectory _host = new();

    [Fact]
    public void Only_a_guest_that_sees_the_window_is_told_of_it()
    {
        using DaxGuest guest = new(_host.Options);
        FuseInitOut blind = guest.Client.Initialize().Value;
        Assert.Equal(0, blind.MapAlignment);
        Assert.False(guest.Client.Features.HasFlag(FuseFeatures.MapAlignment));
        Assert.Equal(Errno.ENOSYS, guest.Map(NodeId.Root, 0));

        // It offers, but nobody can map: the front end never asked for the region.
        Assert.Equal(0, guest.Initialize().MapAlignment);

        using SharedMemoryRegion region = Open(guest);
        FuseInitOut seeing = guest.Initialize();
        Assert.Equal(21, seeing.MapAlignment);
        Assert.True(guest.Client.Features.HasFlag(FuseFeatures.MapAlignment | FuseFeatures.HasInodeDax));
        Assert.Equal(0, region.MappingCount);
    }

    [Fact]
    public unsafe void A_file_is_memory_for_guest_and_host_up_to_its_last_partial_page()
    {
        const int size = (5 << 20) + 1234;
        DaxGuest.WriteFile(_host["f"], size);
        using DaxGuest guest = new(_host.Options);
        using SharedMemoryRegion region = Open(guest);
        guest.Initialize();
        NodeId node = guest.Lookup("f").NodeId;
        for (ulong offset = 0; offset < size; offset += Slot)
        {
            Assert.Equal(Errno.Success, guest.Map(node, offset + Slot, offset, flags: ReadWrite));
        }

        for (int i = 0; i < size; i++)
        {
            Assert.Equal(DaxGuest.ByteAt(i), region.Address[Slot + (ulong)i]);
        }

        region.Address[Slot + size - 1] = 0xaa;
        using Microsoft.Win32.SafeHandles.SafeFileHandle file =
            File.OpenHandle(_host["f"], System.IO.FileMode.Open, FileAccess.ReadWrite, FileShare.ReadWrite);
        byte[] last = new byte[1];
        RandomAccess.Read(file, last, size - 1);
        Assert.Equal(0xaa, last[0]);
        RandomAccess.Write(file, [0xbb], 3 << 20);
        Assert.Equal(0xbb, region.Address[Slot + (3 << 20)]);
        Assert.Equal(3, region.MappingCount);
    }

    [Theory]
    [InlineData(0UL, 0UL, 0UL, 2UL)]
    [InlineData(0UL, 0UL, 4096UL, 2UL)]
    [InlineData(0UL, 0UL, Slot + 1, 2UL)]
    [InlineData(4096UL, 0UL, Slot, 2UL)]
    [InlineData(0UL, 4096UL, Slot, 2UL)]
    [InlineData(0UL, 1UL, Slot, 2UL)]
    [InlineData(8 * Slot, 0UL, Slot, 2UL)]
    [InlineData(7 * Slot, 0UL, 2 * Slot, 2UL)]
    [InlineData(0UL, 0UL, 9 * Slot, 2UL)]
    [InlineData(ulong.MaxValue - Slot + 1, 0UL, Slot, 2UL)]
    [InlineData(ulong.MaxValue - Slot + 1, 0UL, 2 * Slot, 2UL)]
    [InlineData(0UL, 0UL, ulong.MaxValue - Slot + 1, 2UL)]
    [InlineData(0UL, 1UL << 63, Slot, 2UL)]
    [InlineData(0UL, (1UL << 63) - Slot, 2 * Slot, 2UL)]
    [InlineData(0UL, 0UL, Slot, 0UL)]
    [InlineData(0UL, 0UL, Slot, 4UL)]
    [InlineData(0UL, 0UL, Slot, ulong.MaxValue)]
    public void A_mapping_that_makes_no_sense_is_refused_and_nobody_is_asked(
        ulong windowOffset, ulong fileOffset, ulong length, ulong flags)
    {
        DaxGuest.WriteFile(_host["f"], 1 << 20);
        using DaxGuest guest = new(_host.Options);
        using SharedMemoryRegion region = Open(guest);
        guest.Initialize();
        NodeId node = guest.Lookup("f").NodeId;
        Assert.Equal(Errno.EINVAL, guest.Map(node, windowOffset, fileOffset, length, (FuseMappingFlags)flags));
        Assert.Equal(0, region.MappingCount);
        Assert.Equal(0, region.RefusedCount);
        Assert.True(guest.Share.MappedFiles.IsEmpty);
        Assert.Equal(1 << 20, new FileInfo(_host["f"]).Length);
        Assert.Equal(Errno.Success, guest.Map(node, 0));
    }

    [Fact]
    public void Only_regular_files_are_mapped_and_handles_are_held_to_what_they_are()
    {
        _host.Fill();
        DaxGuest.WriteFile(_host["f2"], 1 << 20);
        using DaxGuest guest = new(_host.Options);
        using SharedMemoryRegion region = Open(guest);
        guest.Initialize();
        Assert.Equal(Errno.EISDIR, guest.Map(NodeId.Root, 0));
        Assert.Equal(Errno.EINVAL, guest.Map(guest.Lookup("ln").NodeId, 0));
        Assert.Equal(Errno.EINVAL, guest.Map(guest.Lookup("fifo").NodeId, 0));
        Assert.Equal(Errno.EINVAL, guest.Map(guest.Lookup("chr").NodeId, 0));
        Assert.Equal(Errno.EBADF, guest.Map(new NodeId(0x1234_5678_9abc), 0));

        NodeId node = guest.Lookup("f").NodeId;
        NodeId other = guest.Lookup("f2").NodeId;
        ulong readOnly = guest.Client.Open(node, flags: 0).Value.Handle.Value;
        ulong writable = guest.Client.Open(node, flags: 2).Value.Handle.Value;
        Assert.Equal(Errno.EBADF, guest.Map(other, 0, handle: writable));
        Assert.Equal(Errno.EBADF, guest.Map(node, 0, handle: 0x55));
        Assert.Equal(Errno.EACCES, guest.Map(node, 0, flags: ReadWrite, handle: readOnly));
        Assert.Equal(Errno.Success, guest.Map(node, 0, handle: readOnly));
        Assert.Equal(Errno.Success, guest.Map(node, 0, flags: ReadWrite, handle: writable));
        Assert.Equal(1, region.MappingCount);
        Assert.Equal(DaxGuest.Bytes(1 << 20), File.ReadAllBytes(_host["f2"]));
    }

    [Fact]
    public unsafe void A_share_that_may_only_be_read_is_mapped_so()
    {
        DaxGuest.WriteFile(_host["f"], 1 << 20);
        using DaxGuest guest = new(_host.Options with { ReadOnly = true });
        using SharedMemoryRegion region = Open(guest);
        guest.Initialize();
        NodeEntry entry = guest.Lookup("f");
        Assert.Equal(FuseAttributeFlags.Dax, entry.Attributes.Flags);
        Assert.Equal(Errno.EROFS, guest.Map(entry.NodeId, 0, flags: ReadWrite));
        Assert.Equal(Errno.Success, guest.Map(entry.NodeId, 0));
        Assert.Equal(DaxGuest.ByteAt(5), region.Address[5]);
        Assert.Contains("r--s", Protection(region.Address), StringComparison.Ordinal);
    }

    [Fact]
    public unsafe void A_range_is_replaced_upgraded_and_removed_slot_by_slot()
    {
        DaxGuest.WriteFile(_host["a"], 4 << 20);
        File.WriteAllBytes(_host["b"], Enumerable.Repeat((byte)0xee, 4 << 20).ToArray());
        using DaxGuest guest = new(_host.Options);
        using SharedMemoryRegion region = Open(guest);
        guest.Initialize();
        NodeId a = guest.Lookup("a").NodeId;
        NodeId b = guest.Lookup("b").NodeId;

        Assert.Equal(Errno.Success, guest.Map(a, 0, 0, 2 * Slot));
        Assert.Contains("r--s", Protection(region.Address), StringComparison.Ordinal);
        Assert.Equal(Errno.Success, guest.Map(a, 0, 0, Slot, ReadWrite));
        Assert.Contains("rw-s", Protection(region.Address), StringComparison.Ordinal);
        Assert.Contains("r--s", Protection(region.Address + Slot), StringComparison.Ordinal);

        // A mapping over the end of one and what is free behind it.
        Assert.Equal(Errno.Success, guest.Map(b, Slot, 0, 2 * Slot));
        Assert.Equal(DaxGuest.ByteAt(7), region.Address[7]);
        Assert.Equal(0xee, region.Address[Slot]);
        Assert.Equal(0xee, region.Address[(3 * Slot) - 1]);
        Assert.Equal(3, region.MappingCount);

        Assert.Equal(Errno.Success, guest.Unmap((Slot, Slot)));
        Assert.Equal(Errno.Success, guest.Unmap((Slot, Slot), (5 * Slot, Slot)));
        Assert.Equal(2, region.MappingCount);
        Assert.Equal(Errno.Success, guest.Unmap((0, ulong.MaxValue)));
        Assert.Equal(0, region.MappingCount);
        Assert.True(guest.Share.MappedFiles.IsEmpty);
        Assert.Equal(0, region.RefusedCount);
    }

    [Fact]
    public void A_removal_with_a_wrong_count_or_a_bad_range_removes_nothing()
    {
        DaxGuest.WriteFile(_host["f"], 1 << 20);
        using DaxGuest guest = new(_host.Options);
        using SharedMemoryRegion region = Open(guest);
        guest.Initialize();
        Assert.Equal(Errno.Success, guest.Map(guest.Lookup("f").NodeId, 0));
        Assert.Equal(Errno.EINVAL, guest.Unmap(2, (0, Slot)));
        Assert.Equal(Errno.EINVAL, guest.Unmap(0, (0, Slot)));
        Assert.Equal(Errno.EINVAL, guest.Unmap(uint.MaxValue, (0, Slot)));
        Assert.Equal(Errno.EINVAL, guest.Unmap((0, Slot), (0, 4096)));
        Assert.Equal(Errno.EINVAL, guest.Unmap((0, Slot), (8 * Slot, Slot)));
        Assert.Equal(Errno.EINVAL, guest.Unmap((0, Slot), (ulong.MaxValue - Slot + 1, 2 * Slot)));
        Assert.Equal(1, region.MappingCount);
        Assert.Equal(Errno.Success, guest.Unmap());
        Assert.Equal(1, region.MappingCount);
    }

    [Fact]
    public void A_flood_of_mappings_fills_the_window_and_no_more()
    {
        for (int i = 0; i < 40; i++)
        {
            DaxGuest.WriteFile(_host[$"f{i}"], 4096);
        }

        using DaxGuest guest = new(_host.Options);
        using SharedMemoryRegion region = Open(guest);
        guest.Initialize(always: true);
        NodeId[] nodes = [.. Enumerable.Range(0, 40).Select(i => guest.Lookup($"f{i}").NodeId)];
        for (int round = 0; round < 1000; round++)
        {
            Assert.Equal(Errno.Success, guest.Map(nodes[round % 40], (ulong)(round * 7 % 8) * Slot));
        }

        Assert.Equal(8, region.MappingCount);
        Assert.InRange(guest.Share.MappedFiles.Count, 1, 8);
        Assert.Equal(0, region.RefusedCount);
        Assert.All(nodes.Index(), node => Assert.Equal(DaxGuest.Bytes(4096), File.ReadAllBytes(_host[$"f{node.Index}"])));
    }

    [Theory]
    [InlineData("DESTROY")]
    [InlineData("INIT")]
    [InlineData("disconnect")]
    public void The_end_of_a_session_ends_its_mappings(string how)
    {
        DaxGuest.WriteFile(_host["f"], 1 << 20);
        using DaxGuest guest = new(_host.Options);
        using SharedMemoryRegion region = Open(guest);
        guest.Initialize();
        Assert.Equal(Errno.Success, guest.Map(guest.Lookup("f").NodeId, 0));
        switch (how)
        {
            case "DESTROY":
                Assert.Equal(Errno.Success, guest.Client.Destroy());
                Assert.Equal(0, region.MappingCount);
                break;
            case "INIT":
                guest.Initialize();
                Assert.Equal(0, region.MappingCount);
                break;
            default:
                guest.Driver.Dispose();
                Until(() => guest.Share.MappedFiles.IsEmpty);
                break;
        }

        Assert.True(guest.Share.MappedFiles.IsEmpty);
        Assert.Equal(0, region.RefusedCount);
    }

    [Fact]
    public unsafe void What_one_guest_cuts_off_is_unmapped_from_all_before()
    {
        DaxGuest.WriteFile(_host["f"], 4 << 20);
        using var share = Share.Open(_host.Options);
        using DaxGuest first = new(share);
        using SharedMemoryRegion firstRegion = Open(first);
        first.Initialize();
        using DaxGuest second = new(share);
        using SharedMemoryRegion secondRegion = Open(second);
        second.Initialize();
        NodeId node = first.Lookup("f").NodeId;
        NodeId same = second.Lookup("f").NodeId;
        Assert.Equal(Errno.Success, first.Map(node, 0, 0, 2 * Slot));
        Assert.Equal(Errno.Success, second.Map(same, Slot, 0, 2 * Slot));

        Assert.Equal(Errno.Success, first.Resize(node, 5000));
        Assert.Equal(1, firstRegion.MappingCount);
        Assert.Equal(1, secondRegion.MappingCount);
        Assert.Equal(DaxGuest.ByteAt(4999), secondRegion.Address[Slot + 4999]);
        Assert.Equal(0, secondRegion.Address[Slot + 5000]);
        Assert.Contains("causeway-window", Protection(secondRegion.Address + Slot + 8192), StringComparison.Ordinal);

        // And comes back with the file, also for the guest that does not ask again.
        Assert.Equal(Errno.Success, second.Resize(same, 4 << 20));
        Assert.Equal(0, firstRegion.Address[(4 << 20) - 1]);
        Assert.Equal(0, secondRegion.Address[Slot + (4 << 20) - 1]);

        FuseOpenOut truncated = second.Client.Open(same, flags: 0x201).Value;
        Assert.Equal(0, firstRegion.MappingCount);
        Assert.Equal(0, secondRegion.MappingCount);
        Assert.Equal(3u, second.Client.Write(same, truncated.Handle, 0, "abc"u8).Value.Size);
        Assert.Equal((byte)'c', firstRegion.Address[2]);
        Assert.Equal((byte)'c', secondRegion.Address[Slot + 2]);
    }

    [Fact]
    public void Files_are_chosen_by_size_and_as_long_as_there_is_room()
    {
        DaxGuest.WriteFile(_host["small"], (128 << 10) - 1);
        DaxGuest.WriteFile(_host["fit"], 128 << 10);
        DaxGuest.WriteFile(_host["odd"], (128 << 10) + 1);
        DaxGuest.WriteFile(_host["huge"], 14 << 20);
        DaxGuest.WriteFile(_host["large"], 7 << 20);
        Directory.CreateDirectory(_host["d"]);
        using DaxGuest guest = new(_host.Options); // 8 slots, 6 to give
        using SharedMemoryRegion region = Open(guest);
        guest.Initialize();
        Assert.Equal(FuseAttributeFlags.None, Flags("small"));
        Assert.Equal(FuseAttributeFlags.None, Flags("d"));
        Assert.Equal(FuseAttributeFlags.None, Flags("huge"));
        Assert.Equal(FuseAttributeFlags.Dax, Flags("fit"));
        Assert.Equal(FuseAttributeFlags.Dax, Flags("odd"));
        NodeEntry large = guest.Lookup("large");
        Assert.Equal(FuseAttributeFlags.Dax, large.Attributes.Flags);

        // All six are taken, and given again when the guest forgets.
        DaxGuest.WriteFile(_host["late"], 1 << 20);
        DaxGuest.WriteFile(_host["later"], 1 << 20);
        Assert.Equal(FuseAttributeFlags.None, Flags("late"));
        Assert.Equal(FuseAttributeFlags.Dax, guest.Client.GetAttr(large.NodeId).Value.Attributes.Flags);
        guest.Client.Forget(large.NodeId, 1);
        Until(() =>
        {
            NodeEntry entry = guest.Lookup("later");
            if (entry.Attributes.Flags == FuseAttributeFlags.Dax)
            {
                return true;
            }

            guest.Client.Forget(entry.NodeId, 1);
            return false;
        });

        FuseAttributeFlags Flags(string name)
        {
            NodeEntry entry = guest.Lookup(name);
            Assert.Equal(entry.Attributes.Flags, guest.Client.GetAttr(entry.NodeId).Value.Attributes.Flags);
            return entry.Attributes.Flags;
        }
    }

    [Fact]
    public void A_guest_that_maps_everything_is_told_of_no_file()
    {
        DaxGuest.WriteFile(_host["f"], 1 << 20);
        using DaxGuest guest = new(_host.Options);
        using SharedMemoryRegion region = Open(guest);
        Assert.Equal(21, guest.Initialize(always: true).MapAlignment);
        NodeEntry entry = guest.Lookup("f");
        Assert.Equal(FuseAttributeFlags.None, entry.Attributes.Flags);
        Assert.Equal(Errno.Success, guest.Map(entry.NodeId, 0, flags: ReadWrite));
    }

    public void Dispose() => _host.Dispose();

    internal static void Until(Func<bool> condition)
    {
        Assert.True(SpinWait.SpinUntil(condition, TimeSpan.FromSeconds(60)), "the condition never holds");
    }

    private static SharedMemoryRegion Open(DaxGuest guest)
    {
        SharedMemoryRegion region = Assert.IsType<SharedMemoryRegion>(guest.Driver.Frontend.OpenSharedMemory());
        _ = guest.Driver.Frontend.GetFeatures();
        return region;
    }

    // The line of /proc/self/maps that an address is in.
    private static unsafe string Protection(byte* address)
    {
        foreach (string line in File.ReadLines("/proc/self/maps"))
        {
            string[] ends = line.Split(' ')[0].Split('-');
            if ((ulong)address >= Convert.ToUInt64(ends[0], 16) && (ulong)address < Convert.ToUInt64(ends[1], 16))
            {
                return line;
            }
        }

        return "not mapped";
    }
}
