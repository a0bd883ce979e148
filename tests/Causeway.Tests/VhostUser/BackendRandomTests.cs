using System.Runtime.InteropServices;
using Causeway.Linux;
using Causeway.VhostUser.Frontend;
using Causeway.VhostUser.Messages;
using CsCheck;
using Microsoft.Win32.SafeHandles;

namespace Causeway.Tests.VhostUser;

/// <summary>Random conversations with a live back end. The device checks the order of what reaches it.</summary>
[Collection(OpenDescriptors.Collection)]
public sealed class BackendRandomTests
{
    private static readonly VhostUserRequest[] s_requests = Enum.GetValues<VhostUserRequest>();

    /// <summary>One message: what it is about, two small numbers, and whether something about its shape is wrong.</summary>
    private static readonly Gen<(int Request, uint First, uint Second, int Lie)> s_message =
        Gen.Select(Gen.Int[0, s_requests.Length - 1], Gen.UInt[0, 3], Gen.UInt[0, 7], Gen.Int[0, 60]);

    [Fact]
    public void Random_conversations_neither_hang_nor_crash_nor_leak()
    {
        using TestMemory memory = new();
        using TestRing ring = new(0);
        HashSet<string> before = OpenDescriptors.All();

        s_message.Array[1, 60].Sample(
            messages =>
            {
                // Disposing waits for the end, and fails when it is anything but a closed connection or a violation.
                using BackendRig rig = new(new RecordingDevice { Config = new byte[40] });
                foreach ((int request, uint first, uint second, int lie) in messages)
                {
                    if (!TrySend(rig, s_requests[request], first, second, lie, memory, ring))
                    {
                        break;
                    }
                }
            },
            iter: 2000,
            threads: 1);

        Assert.Empty(OpenDescriptors.All().Since(before));
    }

    [Fact]
    public void Random_changes_of_a_running_device_are_done_or_refused()
    {
        using TestMemory memory = new();
        using TestRing ring = new(0);
        HashSet<string> before = OpenDescriptors.All();

        Gen.Select(Gen.Int[0, 13], Gen.Int[0, 1], Gen.UShort).Array[1, 40].Sample(
            steps =>
            {
                using BackendRig rig = new BackendRig().Connected(memory);
                foreach ((int step, int index, ushort number) in steps)
                {
                    try
                    {
                        Change(rig.Frontend, step, index, number, memory, ring);
                    }
                    catch (VhostUserRefusedException)
                    {
                        // One of the two right answers.
                    }
                }

                Assert.True(rig.Frontend.IsConnected);
                rig.Frontend.GetFeatures();
            },
            iter: 500,
            threads: 1);

        Assert.Empty(OpenDescriptors.All().Since(before));
    }

    private static bool TrySend(
        BackendRig rig, VhostUserRequest request, uint first, uint second, int lie, TestMemory memory, TestRing ring)
    {
        (byte[] payload, SafeFileHandle[] descriptors) = Compose(request, first, second, memory, ring);
        uint size = (uint)payload.Length;
        VhostUserHeaderFlags flags = VhostUserHeaderFlags.Version1;
        switch (lie)
        {
            case 0:
                flags = (VhostUserHeaderFlags)second;
                break;
            case 1:
                payload = [.. payload, 0];
                size++;
                break;
            case 2:
                descriptors = [.. descriptors, ring.Kick];
                break;
            case 3:
                payload.AsSpan().Fill((byte)((first * 67) + second));
                break;
            case > 30:
                flags |= VhostUserHeaderFlags.NeedReply;
                break;
            default:
                break;
        }

        byte[] bytes = new byte[VhostUserHeader.Length + payload.Length];
        MemoryMarshal.Write(bytes, new VhostUserHeader((uint)request, flags, size));
        payload.CopyTo(bytes, VhostUserHeader.Length);
        int[] numbers = [.. descriptors.Select(handle => (int)handle.DangerousGetHandle())];
        return !Sockets.Sendmsg((int)rig.Socket.DangerousGetHandle(), bytes, numbers).IsError;
    }

    private static (byte[] Payload, SafeFileHandle[] Descriptors) Compose(
        VhostUserRequest request, uint first, uint second, TestMemory memory, TestRing ring) => request switch
        {
            VhostUserRequest.SetFeatures => (
                Bytes((ulong)(VirtioFeatures.Version1 | (first > 0 ? VirtioFeatures.ProtocolFeatures : 0)
                    | (second > 3 ? VirtioFeatures.LogAll : 0))), []),
            VhostUserRequest.SetProtocolFeatures => (Bytes(second == 0 ? 0xffffUL : 0xa62bUL), []),
            VhostUserRequest.SetVringNum => (Bytes(new VringState(first, 1u << (int)second)), []),
            VhostUserRequest.SetVringBase or VhostUserRequest.GetVringBase or VhostUserRequest.SetVringEnable =>
                (Bytes(new VringState(first, second & 1)), []),
            VhostUserRequest.SetVringAddress => (
                Bytes(TestMemory.WireAddresses((int)second) with { Index = first, Flags = (VringAddressFlags)(second & 1) }),
                []),
            VhostUserRequest.SetVringKick or VhostUserRequest.SetVringCall or VhostUserRequest.SetVringError =>
                second == 0
                    ? (Bytes(VringEventWord.For((int)first, hasDescriptor: false)), [])
                    : (Bytes(VringEventWord.For((int)first, hasDescriptor: true)), [second == 1 ? memory.File : ring.Kick]),
            VhostUserRequest.SetMemoryTable => second == 0
                ? (Bytes(new MemoryTableHeader(0, 0)), [])
                : ([.. Bytes(new MemoryTableHeader(1, 0)), .. Bytes(Entry)], [memory.File]),
            VhostUserRequest.AddMemoryRegion => (Bytes(new SingleMemoryRegion(0, Entry)), [memory.File]),
            VhostUserRequest.RemoveMemoryRegion => (Bytes(new SingleMemoryRegion(0, Entry)), []),
            VhostUserRequest.SetLogBase => (Bytes(new LogArea(second << 10, 0)), [memory.File]),
            VhostUserRequest.SetLogEvent or VhostUserRequest.SetBackendRequestChannel => ([], [ring.Kick]),
            VhostUserRequest.AddFuseDevice => (
                Bytes(new FuseDeviceDescription(first, (FuseDeviceFlags)second)), [memory.File, ring.Kick, ring.Kick]),
            VhostUserRequest.GetConfig or VhostUserRequest.SetConfig =>
                ([.. Bytes(new ConfigHeader(first * 20, second, (ConfigFlags)(first & 1))), .. new byte[second]], []),
            _ => ([], []),
        };

    private static MemoryRegionEntry Entry =>
        new(TestMemory.GuestBase, TestMemory.Size, TestMemory.FrontendBase, 0);

    private static byte[] Bytes<T>(T value)
        where T : unmanaged => MemoryMarshal.AsBytes(new ReadOnlySpan<T>(in value)).ToArray();

    private static void Change(
        VhostUserFrontend frontend, int step, int index, ushort number, TestMemory memory, TestRing ring)
    {
        switch (step)
        {
            case 0:
                frontend.SetVringNum(index, 1 << (number % 12));
                break;
            case 1:
                frontend.SetVringBase(index, number);
                break;
            case 2:
                frontend.SetVringAddresses(TestMemory.WireAddresses(number % 16) with { Index = (uint)index });
                break;
            case 3:
                frontend.SetVringKick(index, ring.Kick);
                break;
            case 4:
                frontend.SetVringCall(index, number % 2 == 0 ? ring.Call : null);
                break;
            case 5:
                frontend.SetVringError(index, number % 2 == 0 ? ring.Error : null);
                break;
            case 6:
            case 7:
                frontend.SetVringEnable(index, isEnabled: number % 4 != 0);
                break;
            case 8:
                frontend.GetVringBase(index);
                break;
            case 9:
                frontend.SetMemoryTable(memory.Region);
                break;
            case 10:
                frontend.RemoveMemoryRegion(TestMemory.Range);
                break;
            case 11:
                frontend.AddMemoryRegion(memory.Region);
                break;
            case 12:
                frontend.SetLogBase(memory.File, new LogArea(0x1000, 0));
                frontend.SetFeatures(number % 2 == 0
                    ? frontend.NegotiatedFeatures | VirtioFeatures.LogAll
                    : frontend.NegotiatedFeatures & ~VirtioFeatures.LogAll);
                break;
            default:
                frontend.StartRing(ring.Description with { Index = index });
                break;
        }
    }
}
