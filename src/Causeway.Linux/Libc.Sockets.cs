using System.Runtime.InteropServices;

namespace Causeway.Linux;

internal static unsafe partial class Libc
{
    [LibraryImport(Name)]
    internal static partial int socket(int domain, int type, int protocol);

    [LibraryImport(Name)]
    internal static partial int socketpair(int domain, int type, int protocol, int* sv);

    [LibraryImport(Name)]
    internal static partial int bind(int sockfd, void* addr, uint addrlen);

    [LibraryImport(Name)]
    internal static partial int listen(int sockfd, int backlog);

    [LibraryImport(Name)]
    internal static partial int accept4(int sockfd, void* addr, uint* addrlen, int flags);

    [LibraryImport(Name)]
    internal static partial int connect(int sockfd, void* addr, uint addrlen);

    [LibraryImport(Name)]
    internal static partial nint recvmsg(int sockfd, MessageHeader* msg, int flags);

    [LibraryImport(Name)]
    internal static partial nint sendmsg(int sockfd, MessageHeader* msg, int flags);

    [LibraryImport(Name)]
    internal static partial int shutdown(int sockfd, int how);

    [LibraryImport(Name)]
    internal static partial int getsockopt(int sockfd, int level, int optname, void* optval, uint* optlen);

    /// <summary><c>struct msghdr</c> of recvmsg(2).</summary>
    [StructLayout(LayoutKind.Sequential)]
    internal struct MessageHeader
    {
        /// <summary><c>msg_name</c></summary>
        public void* Name;

        /// <summary><c>msg_namelen</c></summary>
        public uint NameLength;

        /// <summary><c>msg_iov</c></summary>
        public IoVector* Vectors;

        /// <summary><c>msg_iovlen</c></summary>
        public nuint VectorCount;

        /// <summary><c>msg_control</c></summary>
        public void* Control;

        /// <summary><c>msg_controllen</c></summary>
        public nuint ControlLength;

        /// <summary><c>msg_flags</c></summary>
        public int Flags;
    }

    /// <summary><c>struct cmsghdr</c> of cmsg(3); the data follow at once.</summary>
    [StructLayout(LayoutKind.Sequential)]
    internal struct ControlHeader
    {
        /// <summary><c>cmsg_len</c>: this header and the data, without the padding behind them.</summary>
        public nuint Length;

        /// <summary><c>cmsg_level</c></summary>
        public int Level;

        /// <summary><c>cmsg_type</c></summary>
        public int Type;
    }
}
