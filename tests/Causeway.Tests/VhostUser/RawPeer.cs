using Causeway.Linux;
using Microsoft.Win32.SafeHandles;

namespace Causeway.Tests.VhostUser;

/// <summary>One end of a socket, spoken to in hexadecimal.</summary>
internal static class RawPeer
{
    private const int DeadlineMilliseconds = 30_000;

    /// <summary>Sends bytes written as hexadecimal digits, with descriptors at the first one.</summary>
    public static void SendHex(this SafeFileHandle socket, string hex, params SafeFileHandle[] descriptors) =>
        socket.SendBytes(Convert.FromHexString(hex.Replace(" ", "")), descriptors);

    public static void SendBytes(this SafeFileHandle socket, ReadOnlySpan<byte> bytes, params SafeFileHandle[] descriptors)
    {
        int[] numbers = [.. descriptors.Select(handle => (int)handle.DangerousGetHandle())];
        int sent = Sockets.Sendmsg((int)socket.DangerousGetHandle(), bytes, numbers).ThrowIfError("send").Count;
        Assert.Equal(bytes.Length, sent);
    }

    /// <summary>Receives exactly as many bytes; fewer when the other end closes.</summary>
    public static string ReceiveHex(this SafeFileHandle socket, int length) =>
        socket.ReceiveHex(length, out _);

    public static string ReceiveHex(this SafeFileHandle socket, int length, out int descriptorCount)
    {
        byte[] bytes = new byte[length];
        Span<int> descriptors = stackalloc int[64];
        int filled = 0;
        descriptorCount = 0;
        while (filled < length)
        {
            PollDescriptor wait = new((int)socket.DangerousGetHandle(), PollEvents.Readable);
            Assert.Equal(1, Poll.Wait(new Span<PollDescriptor>(ref wait), DeadlineMilliseconds).Count);
            SyscallResult result = Sockets.Recvmsg(
                (int)socket.DangerousGetHandle(), bytes.AsSpan(filled), descriptors, out ReceivedControl control);
            for (int i = 0; i < control.DescriptorCount; i++)
            {
                FileIO.Close(descriptors[i]);
            }

            descriptorCount += control.DescriptorCount;
            if (result.IsError || result.Count == 0)
            {
                break;
            }

            filled += result.Count;
        }

        return Convert.ToHexStringLower(bytes.AsSpan(0, filled));
    }

    /// <summary>Whether the other end has closed without sending anything more.</summary>
    public static bool IsClosed(this SafeFileHandle socket) => socket.ReceiveHex(1).Length == 0;
}

/// <summary>
/// The descriptors and mappings of this process that a vhost-user connection can leave behind, each by its name: what another
/// test left to the finalizers may go at any time, so that their number alone would say nothing.
/// </summary>
internal static class OpenDescriptors
{
    /// <summary>Tests that look at what is open cannot run beside others.</summary>
    public const string Collection = "counts descriptors";

    public static HashSet<string> All() => [.. Directory.GetFiles("/proc/self/fd")
        .Select(path => (Path: path, Target: new FileInfo(path).LinkTarget))
        .Where(entry => entry.Target is string target
            && (target.StartsWith("socket:", StringComparison.Ordinal)
                || target.StartsWith("/memfd:causeway-test", StringComparison.Ordinal)
                || target == "anon_inode:[eventfd]"))
        .Select(entry => $"{entry.Path} {entry.Target}")];

    /// <summary>The mappings of <see cref="TestMemory"/>'s files.</summary>
    public static HashSet<string> Mappings() => [.. File.ReadLines("/proc/self/maps")
        .Where(line => line.Contains("/memfd:causeway-test", StringComparison.Ordinal))];

    /// <summary>What is there now and was not before.</summary>
    public static IEnumerable<string> Since(this HashSet<string> now, HashSet<string> before) => now.Except(before);
}

[CollectionDefinition(OpenDescriptors.Collection, DisableParallelization = true)]
public sealed class DescriptorCountingTests;
