// Tasks that use a device end before it does, by deadlines of their own.
#pragma warning disable CA2025, xUnit1051

using System.Buffers;
using Causeway.Driver;

namespace Causeway.Tests.Driver;

/// <summary>A file as a wire: messages through a ring buffer that two clients have mapped.</summary>
public sealed class DaxRingTests
{
    // The producer's position, the consumer's, and messages of 64 bytes.
    private const int Messages = 1_000_000;
    private const int ConsumerAt = 64;
    private const int FirstMessage = 4096;
    private const int Slots = 2048;
    private const int MessageBytes = 64;
    private const int FileBytes = FirstMessage + (Slots * MessageBytes);

    [Fact]
    public async Task A_million_messages_pass_between_two_clients_without_a_request()
    {
        await using DaxClientRig rig = new();
        File.WriteAllBytes(rig.Host("ring"), new byte[FileBytes]);
        VirtioFsClient producer = await rig.ConnectAsync();
        VirtioFsClient consumer = await rig.ConnectAsync();
        using VirtioFsMapping outgoing = await producer.MapAsync("ring", MappingAccess.ReadWrite);
        using VirtioFsMapping incoming = await consumer.MapAsync("ring", MappingAccess.ReadWrite);

        long before = rig.Requests();
        using var end = CancellationTokenSource.CreateLinkedTokenSource(TestContext.Current.CancellationToken);
        end.CancelAfter(TimeSpan.FromSeconds(60));
        Task sending = Task.Factory.StartNew(
            () => Send(outgoing, end.Token), end.Token, TaskCreationOptions.LongRunning, TaskScheduler.Default);
        Task<long> receiving = Task.Factory.StartNew(
            () => Receive(incoming, end.Token), end.Token, TaskCreationOptions.LongRunning, TaskScheduler.Default);
        await sending;
        Assert.Equal(Messages, await receiving);
        Assert.Equal(before, rig.Requests());
        outgoing.ThrowIfNotIntact();
        incoming.ThrowIfNotIntact();
    }

    private static unsafe void Send(VirtioFsMapping mapping, CancellationToken end)
    {
        using MemoryHandle pin = mapping.Pin();
        var memory = (byte*)pin.Pointer;
        ref ulong sent = ref *(ulong*)memory;
        ref ulong received = ref *(ulong*)(memory + ConsumerAt);
        for (ulong number = 0; number < Messages; number++)
        {
            Wait(ref received, number - Slots + 1, end);
            var message = (ulong*)(memory + FirstMessage + ((number % Slots) * MessageBytes));
            for (int i = 0; i < MessageBytes / sizeof(ulong); i++)
            {
                message[i] = Word(number, i);
            }

            Volatile.Write(ref sent, number + 1);
        }
    }

    private static unsafe long Receive(VirtioFsMapping mapping, CancellationToken end)
    {
        using MemoryHandle pin = mapping.Pin();
        var memory = (byte*)pin.Pointer;
        ref ulong sent = ref *(ulong*)memory;
        ref ulong received = ref *(ulong*)(memory + ConsumerAt);
        long good = 0;
        for (ulong number = 0; number < Messages; number++)
        {
            Wait(ref sent, number + 1, end);
            var message = (ulong*)(memory + FirstMessage + ((number % Slots) * MessageBytes));
            bool isGood = true;
            for (int i = 0; i < MessageBytes / sizeof(ulong); i++)
            {
                isGood &= message[i] == Word(number, i);
            }

            good += isGood ? 1 : 0;
            Volatile.Write(ref received, number + 1);
        }

        return good;
    }

    // Until a position has come as far as that; the difference wraps.
    private static void Wait(ref ulong position, ulong until, CancellationToken end)
    {
        var wait = default(SpinWait);
        while ((long)(Volatile.Read(ref position) - until) < 0)
        {
            end.ThrowIfCancellationRequested();
            wait.SpinOnce(sleep1Threshold: -1);
        }
    }

    private static ulong Word(ulong number, int index) => (number * 0x9E37_79B9_7F4A_7C15) + (ulong)index;
}
