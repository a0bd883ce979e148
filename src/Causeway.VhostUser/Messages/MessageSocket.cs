using System.Runtime.InteropServices;
using Causeway.Linux;
using Microsoft.Win32.SafeHandles;

namespace Causeway.VhostUser.Messages;

/// <summary>
/// A connected stream socket that carries vhost-user messages, for both ends. Receiving and sending belong to one thread;
/// <see cref="Shutdown"/> may be called from any.
/// </summary>
/// <param name="socket">The connected socket; owned from here on.</param>
internal sealed class MessageSocket(SafeFileHandle socket) : IDisposable
{
    /// <summary>The socket, for waiting on it only.</summary>
    internal SafeFileHandle Handle => socket;

    /// <summary>Receives a header and the descriptors that came with its first byte.</summary>
    /// <param name="header">The header, not checked.</param>
    /// <param name="descriptors">Receives the descriptors; empty before.</param>
    /// <returns>False when the other end has closed and nothing of a message has come.</returns>
    /// <exception cref="VhostUserException">The message ends early, or has more descriptors than any has.</exception>
    internal bool ReceiveHeader(out VhostUserHeader header, DescriptorBatch descriptors)
    {
        Span<byte> bytes = stackalloc byte[VhostUserHeader.Length];
        Span<int> received = stackalloc int[RequestMessage.MaxDescriptors];
        header = default;
        int filled = ReceiveSome(bytes, received, out ReceivedControl control);
        descriptors.Add(received[..control.DescriptorCount]);
        if (control.IsTruncated)
        {
            throw new VhostUserException(
                $"a message carries more than {RequestMessage.MaxDescriptors} descriptors, or more than this process may open");
        }

        if (filled == 0)
        {
            return false;
        }

        ReceiveRest(bytes[filled..]);
        header = MemoryMarshal.Read<VhostUserHeader>(bytes);
        return true;
    }

    /// <summary>Receives the rest of a message, which must not bring descriptors.</summary>
    /// <param name="destination">Filled completely.</param>
    /// <exception cref="VhostUserException">The other end closed before, or sent descriptors.</exception>
    internal void ReceiveRest(Span<byte> destination)
    {
        while (!destination.IsEmpty)
        {
            // Without room for descriptors the kernel drops them and says so.
            int count = ReceiveSome(destination, [], out ReceivedControl control);
            if (control.IsTruncated)
            {
                throw new VhostUserException("descriptors came in the middle of a message");
            }

            if (count == 0)
            {
                throw new VhostUserException("the connection ended in the middle of a message");
            }

            destination = destination[count..];
        }
    }

    /// <summary>Sends a whole message.</summary>
    /// <param name="bytes">The header and the payload.</param>
    /// <param name="descriptors">Sent with the first byte; they stay the caller's.</param>
    /// <returns>False when the other end has gone.</returns>
    internal bool Send(ReadOnlySpan<byte> bytes, ReadOnlySpan<int> descriptors)
    {
        while (!bytes.IsEmpty)
        {
            SyscallResult result = Sockets.Sendmsg(Descriptor, bytes, descriptors);
            if (result.Error is Errno.EPIPE or Errno.ECONNRESET)
            {
                return false;
            }

            bytes = bytes[result.ThrowIfError("send a vhost-user message").Count..];
            descriptors = [];
        }

        return true;
    }

    /// <summary>Ends the connection, so that a thread that waits in it returns. Harmless when repeated or late.</summary>
    internal void Shutdown()
    {
        bool borrowed = false;
        try
        {
            socket.DangerousAddRef(ref borrowed);
            Sockets.Shutdown(Descriptor, SocketShutdown.Both);
        }
        catch (ObjectDisposedException)
        {
            // The connection is over already.
        }
        finally
        {
            if (borrowed)
            {
                socket.DangerousRelease();
            }
        }
    }

    /// <inheritdoc/>
    public void Dispose() => socket.Dispose();

    private int Descriptor => (int)socket.DangerousGetHandle();

    private int ReceiveSome(Span<byte> destination, Span<int> descriptors, out ReceivedControl control)
    {
        SyscallResult result = Sockets.Recvmsg(Descriptor, destination, descriptors, out control);
        return result.Error == Errno.ECONNRESET ? 0 : result.ThrowIfError("receive a vhost-user message").Count;
    }
}
