using System.Runtime.InteropServices;
using Causeway.Linux;
using Causeway.VhostUser.Backend;
using Causeway.VhostUser.Frontend;
using Causeway.VhostUser.Messages;
using Microsoft.Win32.SafeHandles;

namespace Causeway.Tests.VhostUser;

/// <summary>Shared memory regions, both halves over a real socket (vhost-user.md 2.2, 5, 18).</summary>
public sealed class SharedMemoryTests : IDisposable
{
    private const ulong Page = 4096;
    private const ulong RegionSize = 64 * Page;

    private readonly TestMemory _memory = new();
    private readonly SafeFileHandle _file = Memory.CreateMemoryFile("causeway-test\0"u8, (long)(16 * Page), FileSeals.None);

    [Fact]
    public void A_device_without_a_region_offers_slots_and_one_with_a_region_offers_that_instead()
    {
        using BackendRig without = new();
        without.Frontend.Negotiate(new FrontendOptions());
        Assert.True(without.Frontend.NegotiatedProtocolFeatures.HasFlag(VhostUserProtocolFeatures.ConfigureMemorySlots));
        Assert.False(without.Frontend.NegotiatedProtocolFeatures.HasFlag(VhostUserProtocolFeatures.SharedMemory));
        Assert.Null(without.Frontend.OpenSharedMemory());

        // QEMU 11.1 does not survive both (18.5).
        using BackendRig with = Rig();
        with.Frontend.Negotiate(new FrontendOptions());
        Assert.False(with.Frontend.NegotiatedProtocolFeatures.HasFlag(VhostUserProtocolFeatures.ConfigureMemorySlots));
        Assert.True(with.Frontend.NegotiatedProtocolFeatures.HasFlag(VhostUserProtocolFeatures.SharedMemory));
        Assert.Equal(1UL << 22, (ulong)VhostUserProtocolFeatures.SharedMemory);
    }

    [Fact]
    public void The_region_counts_only_once_the_front_end_has_asked_for_it()
    {
        using BackendRig rig = Rig().Connected(_memory);
        Assert.Null(rig.Device.SharedMemory);
        using SharedMemoryRegion region = Open(rig);
        Assert.NotNull(rig.Device.SharedMemory);
        Assert.Equal(RegionSize, region.Size);
        Assert.Equal(0UL, rig.Frontend.GetSharedMemorySize(region: 1));
    }

    [Fact]
    public void Without_acknowledgements_there_is_no_region()
    {
        using BackendRig rig = Rig();
        VhostUserProtocolFeatures features = new FrontendOptions().ProtocolFeatures;
        rig.Frontend.Negotiate(new FrontendOptions
        {
            ProtocolFeatures = features & ~VhostUserProtocolFeatures.ReplyAcknowledge,
        });
        Assert.Equal(RegionSize, rig.Frontend.GetSharedMemorySize(region: 0));
        Assert.Null(rig.Frontend.OpenSharedMemory());
        _ = rig.Frontend.GetFeatures();
        Assert.Null(rig.Device.SharedMemory);
    }

    [Fact]
    public unsafe void A_mapped_file_is_the_memory_of_the_region_in_both_directions()
    {
        using BackendRig rig = Rig().Connected(_memory);
        using SharedMemoryRegion region = Open(rig);
        BackendChannel channel = rig.Device.SharedMemory!;
        RandomAccess.Write(_file, "a"u8, (long)Page);

        Assert.Equal(ChannelResult.Done, channel.Map(At(8, 2, fileOffset: Page), Number(_file)));
        Assert.Equal((byte)'a', region.Address[8 * Page]);
        region.Address[(8 * Page) + 1] = (byte)'b';
        Span<byte> read = stackalloc byte[2];
        Assert.Equal(2, RandomAccess.Read(_file, read, (long)Page));
        Assert.Equal("ab"u8, read);

        Assert.Equal(ChannelResult.Done, channel.Unmap(At(8, 2)));
        Assert.Equal(0, region.MappingCount);
    }

    [Theory]
    [InlineData(0UL, 0UL, 0UL, 0UL)] // no length
    [InlineData(0UL, 0UL, 1UL, 0UL)] // not whole pages
    [InlineData(0UL, 100UL, Page, 0UL)]
    [InlineData(0UL, 0UL, Page, 100UL)]
    [InlineData(0UL, RegionSize, Page, 0UL)] // outside
    [InlineData(0UL, RegionSize - Page, 2 * Page, 0UL)]
    [InlineData(0UL, ulong.MaxValue - Page + 1, 2 * Page, 0UL)] // wraps
    [InlineData(0UL, 0UL, ulong.MaxValue - Page + 1, 0UL)]
    [InlineData(0UL, 0UL, Page, 1UL << 63)]
    [InlineData(1UL, 0UL, Page, 0UL)] // no such region
    public void The_front_end_refuses_what_makes_no_sense_and_goes_on(ulong id, ulong offset, ulong length, ulong fileOffset)
    {
        using BackendRig rig = Rig().Connected(_memory);
        using SharedMemoryRegion region = Open(rig);
        BackendChannel channel = rig.Device.SharedMemory!;
        SharedMemoryMapping bad = new(id, fileOffset, offset, length, SharedMemoryFlags.Writable);
        Assert.Equal(ChannelResult.Refused, channel.Map(bad, Number(_file)));
        Assert.Equal(ChannelResult.Refused, channel.Unmap(bad));
        Assert.Equal(0, region.MappingCount);
        Assert.Equal(ChannelResult.Done, channel.Map(At(0, 1), Number(_file)));
    }

    [Fact]
    public void Mappings_do_not_overlap_and_end_as_they_began()
    {
        using BackendRig rig = Rig().Connected(_memory);
        using SharedMemoryRegion region = Open(rig);
        BackendChannel channel = rig.Device.SharedMemory!;
        Assert.Equal(ChannelResult.Done, channel.Map(At(4, 4), Number(_file)));
        Assert.Equal(ChannelResult.Refused, channel.Map(At(4, 4), Number(_file)));
        Assert.Equal(ChannelResult.Refused, channel.Map(At(0, 5), Number(_file)));
        Assert.Equal(ChannelResult.Refused, channel.Map(At(7, 1), Number(_file)));
        Assert.Equal(ChannelResult.Done, channel.Map(At(0, 4), Number(_file)));
        Assert.Equal(ChannelResult.Done, channel.Map(At(8, 1), Number(_file)));

        Assert.Equal(ChannelResult.Refused, channel.Unmap(At(4, 3)));
        Assert.Equal(ChannelResult.Refused, channel.Unmap(At(5, 3)));
        Assert.Equal(ChannelResult.Done, channel.Unmap(At(4, 4)));
        Assert.Equal(ChannelResult.Refused, channel.Unmap(At(4, 4)));
        Assert.Equal(2, region.MappingCount);
        region.Clear();
        Assert.Equal(0, region.MappingCount);
    }

    [Fact]
    public void A_read_only_mapping_takes_a_read_only_file_and_a_writable_one_does_not()
    {
        string path = Path.GetTempFileName();
        File.WriteAllBytes(path, new byte[Page]);
        using SafeFileHandle file = File.OpenHandle(path);
        File.Delete(path);
        using BackendRig rig = Rig().Connected(_memory);
        using SharedMemoryRegion region = Open(rig);
        BackendChannel channel = rig.Device.SharedMemory!;
        Assert.Equal(ChannelResult.Refused, channel.Map(At(0, 1), Number(file)));
        Assert.Equal(
            ChannelResult.Done, channel.Map(At(0, 1) with { Flags = SharedMemoryFlags.None }, Number(file)));
    }

    [Fact]
    public void Whoever_waits_gives_up_when_interrupted_and_answers_stay_in_step()
    {
        (SafeFileHandle ours, SafeFileHandle theirs) = BackendRig.SocketPair();
        using BackendChannel channel = new(theirs);
        ChannelResult first = ChannelResult.Gone;
        Thread waiting = new(() => first = channel.Map(At(0, 1), Number(_file)));
        waiting.Start();
        RawAnswerer answerer = new(ours);
        uint request = answerer.Receive();
        channel.Interrupt();
        waiting.Join();
        Assert.Equal(ChannelResult.Unanswered, first);
        Assert.Equal(ChannelResult.Interrupted, channel.Unmap(At(0, 1)));

        // The answer to the first request comes late, and says no. The next one's says yes.
        channel.Resume();
        ChannelResult second = ChannelResult.Gone;
        Thread next = new(() => second = channel.Unmap(At(0, 1)));
        next.Start();
        answerer.Answer(request, 1);
        answerer.Answer(answerer.Receive(), 0);
        next.Join();
        Assert.Equal(ChannelResult.Done, second);
        answerer.Dispose();
    }

    [Fact]
    public void A_request_that_nobody_has_begun_to_read_becomes_none_when_interrupted()
    {
        (SafeFileHandle ours, SafeFileHandle theirs) = BackendRig.SocketPair();
        using BackendChannel channel = new(theirs) { WaitsForReader = true };
        using RawAnswerer answerer = new(ours);

        // Not even if it is read at once, before the one who asks can have seen the interruption.
        for (int turn = 0; turn < 200; turn++)
        {
            ChannelResult result = ChannelResult.Gone;
            Thread asking = new(() => result = turn % 2 == 0 ? channel.Map(At(0, 1), Number(_file)) : channel.Unmap(At(0, 1)));
            asking.Start();
            answerer.WaitForBytes();
            Assert.True(channel.Interrupt());
            uint request = answerer.Receive(out VhostUserHeaderFlags flags);
            asking.Join();
            Assert.Equal(ChannelResult.Interrupted, result);
            Assert.InRange(request, 0x100u, uint.MaxValue);
            Assert.Equal(VhostUserHeaderFlags.Version1, flags);
            channel.Resume();
        }

        // Nothing is owed.
        ChannelResult last = ChannelResult.Gone;
        Thread next = new(() => last = channel.Map(At(0, 1), Number(_file)));
        next.Start();
        uint whole = answerer.Receive();
        Assert.Equal((uint)BackendRequest.SharedMemoryMap, whole);
        answerer.Answer(whole, 0);
        next.Join();
        Assert.Equal(ChannelResult.Done, last);
    }

    [Fact]
    public void A_front_end_that_never_reads_loses_a_channel_that_waits_for_it()
    {
        (SafeFileHandle silent, SafeFileHandle theirs) = BackendRig.SocketPair();
        using BackendChannel channel = new(theirs, TimeSpan.FromMilliseconds(50)) { WaitsForReader = true };
        Assert.Equal(ChannelResult.Gone, channel.Map(At(0, 1), Number(_file)));
        Assert.True(channel.IsClosed);
        silent.Dispose();
    }

    [Fact]
    public void A_front_end_that_does_not_answer_or_answers_something_else_loses_the_channel()
    {
        (SafeFileHandle silent, SafeFileHandle theirs) = BackendRig.SocketPair();
        using BackendChannel slow = new(theirs, TimeSpan.FromMilliseconds(50));
        Assert.Equal(ChannelResult.Gone, slow.Map(At(0, 1), Number(_file)));
        Assert.True(slow.IsClosed);
        Assert.Equal(ChannelResult.Gone, slow.Map(At(0, 1), Number(_file)));
        silent.Dispose();

        (SafeFileHandle liar, theirs) = BackendRig.SocketPair();
        using BackendChannel confused = new(theirs);
        using RawAnswerer answerer = new(liar);
        answerer.Answer((uint)BackendRequest.SharedMemoryUnmap, 0);
        Assert.Equal(ChannelResult.Gone, confused.Map(At(0, 1), Number(_file)));

        (SafeFileHandle gone, theirs) = BackendRig.SocketPair();
        using BackendChannel orphan = new(theirs);
        gone.Dispose();
        Assert.Equal(ChannelResult.Gone, orphan.Unmap(At(0, 1)));
    }

    [Fact]
    public void A_channel_that_is_exchanged_ends_the_waits_on_the_old_one()
    {
        using BackendRig rig = Rig();
        rig.Frontend.Negotiate(new FrontendOptions());
        Assert.Equal(RegionSize, rig.Frontend.GetSharedMemorySize(region: 0));
        _ = rig.Frontend.GetFeatures();
        BackendChannel old = Assert.IsType<BackendChannel>(rig.Device.SharedMemory);
        ChannelResult result = ChannelResult.Done;
        Thread waiting = new(() => result = old.Map(At(0, 1), Number(_file)));
        waiting.Start();
        (SafeFileHandle ours, SafeFileHandle theirs) = BackendRig.SocketPair();
        rig.Frontend.SetBackendRequestChannel(theirs);
        waiting.Join();
        Assert.Equal(ChannelResult.Gone, result);
        Assert.NotSame(old, rig.Device.SharedMemory);
        ours.Dispose();
        theirs.Dispose();
    }

    [Fact]
    public void The_memory_table_that_only_shows_our_own_mappings_again_changes_nothing()
    {
        using BackendRig rig = Rig();
        rig.Frontend.Negotiate(new FrontendOptions());
        using SharedMemoryRegion region = Open(rig);
        rig.Frontend.SetMemoryTable(_memory.Region);
        rig.Device.Forget();

        FrontendRegion mapping = new(
            new(new(0xe000_0000), new(0x7f34_0000_0000), 4 * Page, 4 * Page), _file);
        rig.Device.IsOwnMapping = false;
        rig.Frontend.SetMemoryTable(_memory.Region);
        Assert.Equal("", rig.Device.Calls);

        // Without recognizing it, the same table is a change.
        rig.Frontend.SetMemoryTable(_memory.Region, mapping);
        Assert.Equal("memory", rig.Device.Calls);
        rig.Frontend.SetMemoryTable(_memory.Region);
        rig.Device.Forget();
        rig.Device.IsOwnMapping = true;
        rig.Frontend.SetMemoryTable(mapping);
        Assert.Empty(rig.Device.Memory!.Regions);
    }

    public void Dispose()
    {
        _memory.Dispose();
        _file.Dispose();
    }

    private static BackendRig Rig() => new(new RecordingDevice { SharedMemorySizes = [RegionSize] });

    private static SharedMemoryRegion Open(BackendRig rig)
    {
        SharedMemoryRegion region = Assert.IsType<SharedMemoryRegion>(rig.Frontend.OpenSharedMemory());
        // The device is told after the answer; the next request is handled after that.
        _ = rig.Frontend.GetFeatures();
        return region;
    }

    private static SharedMemoryMapping At(ulong page, ulong pages, ulong fileOffset = 0) =>
        new(0, fileOffset, page * Page, pages * Page, SharedMemoryFlags.Writable);

    private static int Number(SafeFileHandle handle) => (int)handle.DangerousGetHandle();

    /// <summary>The front end's end of a channel, by hand.</summary>
    private sealed class RawAnswerer(SafeFileHandle socket) : IDisposable
    {
        public void WaitForBytes() =>
            Poll.Wait([new PollDescriptor(Number(socket), PollEvents.Readable)], Poll.Forever).ThrowIfError("poll");

        public uint Receive() => Receive(out _);

        public uint Receive(out VhostUserHeaderFlags flags)
        {
            byte[] message = new byte[52];
            int[] descriptors = new int[1];
            int filled = 0;
            while (filled < message.Length)
            {
                int count = Sockets.Recvmsg(
                    Number(socket), message.AsSpan(filled), descriptors, out ReceivedControl control)
                    .ThrowIfError("recvmsg").Count;
                Assert.NotEqual(0, count);
                if (control.DescriptorCount == 1)
                {
                    _ = FileIO.Close(descriptors[0]);
                }

                filled += count;
            }

            VhostUserHeader header = MemoryMarshal.Read<VhostUserHeader>(message);
            flags = header.Flags;
            return header.Request;
        }

        public void Answer(uint request, ulong code)
        {
            byte[] message = new byte[20];
            MemoryMarshal.Write(message, new VhostUserHeader(
                request, VhostUserHeaderFlags.Version1 | VhostUserHeaderFlags.Reply, 8));
            MemoryMarshal.Write(message.AsSpan(12), code);
            Assert.Equal(20, Sockets.Sendmsg(Number(socket), message, []).Count);
        }

        public void Dispose() => socket.Dispose();
    }
}
