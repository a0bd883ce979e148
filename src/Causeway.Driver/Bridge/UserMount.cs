using System.ComponentModel;
using System.Diagnostics;
using System.Globalization;
using Causeway.Linux;
using Microsoft.Win32.SafeHandles;

namespace Causeway.Driver.Bridge;

/// <summary>
/// Mounting for users who may not, by fusermount3(1), which is set-user-id root: it mounts and sends the connection's
/// device through the socket whose number is in its environment.
/// </summary>
internal static class UserMount
{
    private const string Program = "fusermount3";

    // The program's name for the socket.
    private const string SocketVariable = "_FUSE_COMMFD";

    public static SafeFileHandle Mount(string path, string options)
    {
        Sockets.Socketpair(SocketType.Stream, out int ours, out int theirs).ThrowIfError("create a pair of sockets");
        using var socket = new SafeFileHandle(ours, ownsHandle: true);
        var given = new SafeFileHandle(theirs, ownsHandle: true);
        string complaint;
        try
        {
            Descriptors.SetInheritable(theirs, isInheritable: true).ThrowIfError("pass a socket on");
            var start = new ProcessStartInfo(Program, ["-o", options, "--", path]) { RedirectStandardError = true };
            start.Environment[SocketVariable] = theirs.ToString(CultureInfo.InvariantCulture);
            using Process process = Start(start);
            // Else the end of the program would not be the end of the socket.
            given.Dispose();
            complaint = process.StandardError.ReadToEnd().Trim();
            process.WaitForExit();
        }
        finally
        {
            given.Dispose();
        }

        Span<byte> data = stackalloc byte[1];
        Span<int> descriptors = stackalloc int[1];
        SyscallResult received = Sockets.Recvmsg(ours, data, descriptors, out ReceivedControl control);
        if (received.IsError || control.DescriptorCount != 1)
        {
            throw new IOException(
                $"cannot mount on '{path}': {(complaint.Length > 0 ? complaint : $"{Program} gave no device")}");
        }

        var device = new SafeFileHandle(descriptors[0], ownsHandle: true);
        Descriptors.SetNonBlocking(descriptors[0]).ThrowIfError("use the device of the connection");
        return device;
    }

    public static Errno Unmount(string path, bool isLazy)
    {
        string[] arguments = isLazy ? ["-u", "-q", "-z", "--", path] : ["-u", "-q", "--", path];
        using Process process = Start(new ProcessStartInfo(Program, arguments) { RedirectStandardError = true });
        process.StandardError.ReadToEnd();
        process.WaitForExit();
        // It says no more than that it failed; as a rule because the mount is in use.
        return process.ExitCode == 0 ? Errno.Success : Errno.EBUSY;
    }

    private static Process Start(ProcessStartInfo start)
    {
        try
        {
            return Process.Start(start)!;
        }
        catch (Win32Exception exception)
        {
            throw new IOException(
                $"mounting as an ordinary user needs '{Program}', which cannot be run ({exception.Message}); install the "
                + "package 'fuse3', or mount as root",
                exception);
        }
    }
}
